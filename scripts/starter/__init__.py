"""Build the shipped starter model; not part of the installed package. See `starter` and `build`."""
