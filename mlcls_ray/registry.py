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
"""Engines execute a network: classes that keep to `engines.base.Engine`, each with its `EngineSpec`."""

NETWORKS: Mapping[str, str] = {
    "starter": "mlcls_ray.models.networks.efficientnet_lite:STARTER",
    "PP-LCNet_x1_0_ML": "mlcls_ray.models.networks.lcnet:X1_0",
    "PP-HGNetV2-B0_ML": "mlcls_ray.models.networks.hgnet_v2:B0",
    "PP-HGNetV2-B4_ML": "mlcls_ray.models.networks.hgnet_v2:B4",
    "PP-HGNetV2-B6_ML": "mlcls_ray.models.networks.hgnet_v2:B6",
    "ResNet50_ML": "mlcls_ray.models.networks.resnet:RESNET50",
    "CLIP_vit_base_patch16_448_ML": "mlcls_ray.models.networks.clip_vit:BASE_PATCH16_448",
}
"""Networks to fine-tune and to export: each is a `models.networks.spec.NetworkSpec`. Published weights are in `models.zoo`."""

EMBEDDING_ENGINES = ("openvino", "onnxruntime")
"""The engines that give a network's features besides its scores. See `engines.base.Embedder`."""

CARD_ENGINES = ("onnxruntime",)
"""The engines that take pixels in the memory of an NVIDIA card. See `engines.base.Pixels`."""

TABLE_FORMATS: Mapping[str, str] = {
    "delta": "mlcls_ray.table.formats.delta:DeltaLabels",
    "iceberg": "mlcls_ray.table.formats.iceberg:IcebergLabels",
    "lance": "mlcls_ray.table.formats.lance:LanceLabels",
}
"""Formats of the label table besides Parquet. Each one's extra has its name. See `table.formats.base`."""

INPUT_KINDS: Mapping[str, str] = {
    "tar": "mlcls_ray.storage.inputs.tar:TarArchive",
    "zip": "mlcls_ray.storage.inputs.zip:ZipArchive",
    "parquet_images": "mlcls_ray.storage.inputs.parquet:ParquetImages",
    "text_list": "mlcls_ray.storage.inputs.uri_list:TextList",
    "csv_list": "mlcls_ray.storage.inputs.uri_list:CsvList",
    "tsv_list": "mlcls_ray.storage.inputs.uri_list:TsvList",
    "jsonl_list": "mlcls_ray.storage.inputs.jsonl:JsonLines",
    "parquet_list": "mlcls_ray.storage.inputs.parquet_list:ParquetList",
    "http": "mlcls_ray.storage.inputs.http:HttpUrl",
    "local": "mlcls_ray.storage.inputs.local:LocalFiles",
    "remote": "mlcls_ray.storage.inputs.remote:RemoteFiles",
}
"""Kinds of input. The first one that takes an input lists it. How to add one: see `storage.inputs.base`."""


def load(target: str) -> Any:
    """Import what a table names, `module:object`."""
    module, _, name = target.partition(":")
    return getattr(import_module(module), name)
