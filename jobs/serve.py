"""A service on a cluster: `ray job submit --working-dir . -- python jobs/serve.py --config configs/serve.yaml`.

Takes the flags of `mlcls serve`. The job lives as long as the service; stopping it drains the service.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a working directory that is not installed

from mlcls_ray.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["serve"]
    main()
