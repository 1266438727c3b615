"""Bytes in and out: uris, inputs, fetching, the output store and its lease."""
