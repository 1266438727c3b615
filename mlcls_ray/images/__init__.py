"""Pure functions on bytes and arrays: decode, resize, annotate. No Ray, no Paddle."""
