"""Models: inference folders, the named ones, and the networks they are exported from."""
