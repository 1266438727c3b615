"""Networks, one file per family. They need Paddle and nothing else, so that an older Paddle can build them too (`convert.lite_program`)."""

from __future__ import annotations

from mlcls_ray.errors import UsageError, suggest
from mlcls_ray.models.networks.spec import NetworkSpec
from mlcls_ray.registry import NETWORKS, load


def network_spec(name: str) -> NetworkSpec:
    """Look up a network by its name in `registry.NETWORKS`. Imports Paddle, which takes seconds.

    Raises:
        UsageError: no network has this name.
    """
    if name not in NETWORKS:
        raise UsageError(f"unknown network '{name}'{suggest(name, NETWORKS)}")
    spec: NetworkSpec = load(NETWORKS[name])
    return spec
