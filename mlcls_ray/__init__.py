"""mlcls_ray: batch multi-label image classification with PaddlePaddle on Ray.

The public API are the names in `__all__`, the methods of what they return, and the exceptions in `mlcls_ray.errors`. Everything else may
change in any release.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlcls_ray.config import LabelJob
    from mlcls_ray.job.label import LabelResult, label
    from mlcls_ray.predict.pipeline import create_pipeline
    from mlcls_ray.table.label_table import open_labels

__all__ = ["LabelJob", "LabelResult", "__version__", "create_pipeline", "label", "open_labels"]

try:
    __version__ = version("mlcls-ray")
except PackageNotFoundError:  # a source tree that is not installed, such as a working directory that Ray ships
    __version__ = "0+source"

_MODULES = {
    "LabelJob": "mlcls_ray.config",
    "LabelResult": "mlcls_ray.job.label",
    "create_pipeline": "mlcls_ray.predict.pipeline",
    "label": "mlcls_ray.job.label",
    "open_labels": "mlcls_ray.table.label_table",
}
"""The module of each public name. It is imported when the name is first used: `mlcls --help` must not wait for Ray, Paddle and Arrow."""


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'mlcls_ray' has no attribute '{name}'")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return __all__
