"""A model in other formats; one format, one file."""
