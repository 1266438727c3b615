"""The labels for other tools."""
