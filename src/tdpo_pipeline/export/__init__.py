"""Checkpoints for others: model cards, a recommended strength, folders to upload."""


class ExportError(ValueError):
    """An export that can't be meant."""
