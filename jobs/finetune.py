"""Fine-tuning: `ray job submit --working-dir . -- python jobs/finetune.py --config configs/finetune.yaml --data DIR --out DIR`.

Takes the flags of `mlcls finetune`. Decoding and augmenting run on the cluster's CPUs, the network where the job's driver is.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a working directory that is not installed

from mlcls_ray.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["finetune"]
    main()
