"""The label table in other formats; one format, one file."""
