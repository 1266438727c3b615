"""Labeled images: formats, checks, splits and samples."""
