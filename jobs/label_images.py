"""Label images on a cluster: `ray job submit --working-dir . -- python jobs/label_images.py --config configs/label_s3.yaml [flags]`.

Takes the flags of `mlcls label`, and uses the cluster that it was submitted to.
"""

import sys

from mlcls_ray.cli import main

if __name__ == "__main__":
    main(["label", *sys.argv[1:]])
