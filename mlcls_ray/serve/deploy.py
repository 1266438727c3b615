"""The import path for a Serve config file: `import_path: mlcls_ray.serve.deploy:build` (configs/deploy/rayservice.yaml)."""

from __future__ import annotations

import os

from ray import serve

from mlcls_ray.serve.app import bind
from mlcls_ray.serve.config import ServeConfig, token


def build(args: ServeConfig) -> serve.Application:
    """Build the application for the `args` of a Serve config. A replica scores with `MLCLS_SERVE_CPUS` threads (default 2).

    Raises:
        UsageError: the device is unknown.
    """
    return bind(args, int(os.environ.get("MLCLS_SERVE_CPUS", "2")) * (args.replicas or 1), token())
