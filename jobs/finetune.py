"""Fine-tune a model: `ray job submit --working-dir . -- python jobs/finetune.py --config configs/finetune.yaml --data DIR --out DIR`.

Takes the flags of `mlcls finetune`. The cluster's CPUs decode and augment; the network learns where the driver runs.
"""

import sys

from mlcls_ray.cli import main

if __name__ == "__main__":
    main(["finetune", *sys.argv[1:]])
