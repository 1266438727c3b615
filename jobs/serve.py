"""Serve a model: `ray job submit --working-dir . -- python jobs/serve.py --config configs/serve.yaml`.

Takes the flags of `mlcls serve`. The service runs as long as the job; stopping the job lets running requests end first.
"""

import sys

from mlcls_ray.cli import main

if __name__ == "__main__":
    main(["serve", *sys.argv[1:]])
