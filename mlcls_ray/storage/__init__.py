"""Where bytes come from and go to: uris, inputs, fetching, the output store and its lease."""
