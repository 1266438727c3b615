"""mlcls_ray: batch multi-label image classification with PaddlePaddle on Ray."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlcls_ray.predict.pipeline import create_pipeline
    from mlcls_ray.table.label_table import open_labels

try:
    __version__ = version("mlcls-ray")
except PackageNotFoundError:  # a source tree on a Ray worker's path, shipped as a job's working directory
    __version__ = "0+source"

__all__ = ["__version__", "create_pipeline", "open_labels"]


def __getattr__(name: str) -> object:
    """Load what is asked for: the command's help must not wait for Arrow."""
    if name == "open_labels":
        from mlcls_ray.table.label_table import open_labels

        return open_labels
    if name == "create_pipeline":
        from mlcls_ray.predict.pipeline import create_pipeline

        return create_pipeline
    raise AttributeError(f"module 'mlcls_ray' has no attribute '{name}'")
