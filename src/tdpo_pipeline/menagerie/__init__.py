"""Menagerie: a small text-to-image world drawn by code, whose truth is known."""
