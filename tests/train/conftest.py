"""Ray's workers cannot import `benchmarks` from scripts/: the tiny network travels to them by value."""

from __future__ import annotations

from benchmarks import tiny_network
from ray import cloudpickle

cloudpickle.register_pickle_by_value(tiny_network)
