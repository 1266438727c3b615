"""Compare a model with ground truth: `ray job submit --working-dir . -- python jobs/evaluate.py --model M --data truth.parquet --out DIR`.

Takes the flags of `mlcls evaluate`. The cluster labels the images; the driver compares.
"""

import sys

from mlcls_ray.cli import main

if __name__ == "__main__":
    main(["evaluate", *sys.argv[1:]])
