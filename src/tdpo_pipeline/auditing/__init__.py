"""Probing a reward before training: what it can be fooled by, and is blind to."""
