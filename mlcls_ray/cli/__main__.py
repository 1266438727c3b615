"""`python -m mlcls_ray.cli`."""

from mlcls_ray.cli import main

main()
