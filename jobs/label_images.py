"""What an operator submits: `ray job submit --working-dir . -- python jobs/label_images.py --config configs/label_s3.yaml [flags]`.

Takes the flags of `mlcls label`. Inside a Ray job it uses the job's own cluster.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a working directory that is not installed

from mlcls_ray.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["label"]
    main()
