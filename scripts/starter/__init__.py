"""How the shipped starter model is built; not part of the installed package. See `starter` and `build`."""
