"""Models: inference folders, the models that have a name, and the networks that they are exported from."""
