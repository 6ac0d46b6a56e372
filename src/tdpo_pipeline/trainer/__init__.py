"""The epoch loop, checkpoints and resume."""
