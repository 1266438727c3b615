"""The HTTP service: PaddleX's wire format on Ray Serve. Needs the extra `serve`."""
