"""The face that PaddleX users know."""
