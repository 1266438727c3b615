"""What a Serve config file imports (configs/deploy/rayservice.yaml): `import_path: mlcls_ray.serve.deploy:build`."""

from __future__ import annotations

import os

from ray import serve

from mlcls_ray.serve.app import bind
from mlcls_ray.serve.config import ServeConfig, token


def build(args: ServeConfig) -> serve.Application:
    """The application for the `args` of a Serve config. One replica scores with the threads of `MLCLS_SERVE_CPUS` CPUs (default 2)."""
    return bind(args, int(os.environ.get("MLCLS_SERVE_CPUS", "2")) * (args.replicas or 1), token())
