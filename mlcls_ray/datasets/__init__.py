"""Labelled images: their formats, checks, splits and samples."""
