"""Conversion of models to other formats; one format, one file."""
