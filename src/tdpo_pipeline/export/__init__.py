"""Checkpoints for others: model cards, a recommended strength, folders to upload."""
