"""Reward fine-tuning algorithms, one readable file each."""
