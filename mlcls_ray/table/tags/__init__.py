"""The labels as keywords where other programs read them: XMP sidecars, image files, captions."""
