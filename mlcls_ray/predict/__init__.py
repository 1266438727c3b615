"""PaddleX's calls, `create_pipeline` and `predict`: label images in this process, without Ray."""
