"""The networks, one file per family: a backbone from float32 ``[N, 3, S, S]`` to feature maps."""
