"""Pure functions on image bytes and pixels: decode, resize, preprocess, draw, PDF pages."""

MAX_PIXELS = 178_956_970
"""The number of pixels above which Pillow, and PaddleX with it, refuses an image."""
