"""The names that people choose from, and what implements each, as `module:object`.

To add an engine, a table format, an input kind or a network: write its file, and name it here. The configuration, the command line and the
documentation derive their choices from these tables. Nothing is imported before `load` asks for it. Kinds of devices are in `devices`.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

ENGINES: Mapping[str, str] = {
    "paddle": "mlcls_ray.engines.paddle:PaddleEngine",
    "openvino": "mlcls_ray.engines.openvino:OpenVinoEngine",
    "onnxruntime": "mlcls_ray.engines.onnxruntime:OnnxRuntimeEngine",
    "tensorrt": "mlcls_ray.engines.tensorrt:TensorRtEngine",
}
"""What executes a network. See `engines.base.Engine`."""

EMBEDDING_ENGINES = ("openvino", "onnxruntime")
"""The engines that give a network's features besides its scores. See `engines.base.Embedder`."""

TABLE_FORMATS: Mapping[str, str] = {
    "delta": "mlcls_ray.table.formats.delta:DeltaLabels",
    "iceberg": "mlcls_ray.table.formats.iceberg:IcebergLabels",
    "lance": "mlcls_ray.table.formats.lance:LanceLabels",
}
"""Formats of the label table besides Parquet. See `table.publish.Table`."""


def load(target: str) -> Any:
    """Import what a table names, `module:object`."""
    module, _, name = target.partition(":")
    return getattr(import_module(module), name)
