"""Reward fine-tuning of text-to-image diffusion models, and its overoptimization."""

__version__ = "0.1.0"
