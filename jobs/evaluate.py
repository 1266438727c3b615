"""A model against the truth: `ray job submit --working-dir . -- python jobs/evaluate.py --model M --data truth.parquet --out DIR`.

Takes the flags of `mlcls evaluate`. The images are labeled as by jobs/label_images.py; what is compared comes to the driver.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a working directory that is not installed

from mlcls_ray.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["evaluate"]
    main()
