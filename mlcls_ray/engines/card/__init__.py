"""Decode and resize on NVIDIA cards: encoded JPEGs → the inputs of models, without a pixel in host memory."""
