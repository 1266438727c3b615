"""The pooled features of a network as a second output beside its scores, for search by likeness.

An exported program gives scores only. In its ONNX graph the backbone's last feature map [N, D, h, w] is found by what the heads do with it:
ours takes its maximum and average over the positions, ML-Decoder projects it by a convolution, others average it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from mlcls_ray.errors import UsageError
from mlcls_ray.models.artifact import Model
from mlcls_ray.models.cache import home
from mlcls_ray.models.convert.onnx import converted

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

FEATURES = "features"
POSITIONS = [2, 3]


def converted_with_features(model: Model) -> Path:
    """The model as ONNX with a second output `features`, float32 [N, D], in this machine's cache.

    Raises:
        UsageError: paddle2onnx is not installed, or the graph has no feature map that we know.
        RunError: the model cannot be converted.
    """
    plain = converted(model)
    target = plain.with_name(f"{plain.stem}-{FEATURES}.onnx")
    if target.is_file():
        return target
    import onnx

    with FileLock(home() / "converted" / f".{target.name}.lock"):
        if not target.is_file():
            loaded = onnx.shape_inference.infer_shapes(onnx.load(str(plain)))
            add_features(loaded.graph, model.name)
            temporary = target.with_suffix(".tmp")
            onnx.save(loaded, str(temporary))
            os.replace(temporary, target)
    return target


def add_features(graph: GraphProto, name: str) -> None:
    """Add the average of the last feature map over its positions to a graph's outputs, in place. `name`: the model's, for messages.

    Raises:
        UsageError: there is no feature map that we know.
    """
    from onnx import TensorProto, helper

    shapes = {one.name: [side.dim_value for side in one.type.tensor_type.shape.dim] for one in graph.value_info}
    found = feature_map(list(graph.node), shapes)
    if found is None:
        raise UsageError(f"embeddings: model '{name}' has no feature map that its head pools or projects")
    graph.node.append(helper.make_node("ReduceMean", [found], [FEATURES], axes=POSITIONS, keepdims=0))
    graph.output.append(helper.make_tensor_value_info(FEATURES, TensorProto.FLOAT, ["N", shapes[found][1]]))


def feature_map(nodes: list[NodeProto], shapes: dict[str, list[int]]) -> str | None:
    """The name of the tensor float32 [N, D, h, w] that a head starts from; `shapes`: those that are known, 0 for an unknown side."""
    averages = [str(one.input[0]) for one in nodes if one.op_type == "GlobalAveragePool" or _reduces(one, "ReduceMean")]
    maxima = [str(one.input[0]) for one in nodes if one.op_type == "GlobalMaxPool" or _reduces(one, "ReduceMax")]
    if maxima:  # local logits have a maximum too, but no average
        return next((one for one in maxima if one in averages), maxima[-1])
    convolutions = [one for one in nodes if one.op_type == "Conv"]
    wide = [one for one in convolutions if _positions(shapes.get(one.input[0], [])) > 1]
    # ML-Decoder ends in a convolution with a group for each class, at one position; SE blocks have one group.
    if wide and convolutions[-1] is not wide[-1] and _groups(convolutions[-1]) > 1:
        return str(wide[-1].input[0])
    return averages[-1] if averages else None


def _reduces(node: NodeProto, kind: str) -> bool:
    return node.op_type == kind and any(one.name == "axes" and list(one.ints) == POSITIONS for one in node.attribute)


def _positions(shape: list[int]) -> int:
    return shape[2] * shape[3] if len(shape) == 4 else 0


def _groups(node: NodeProto) -> int:
    return next((one.i for one in node.attribute if one.name == "group"), 1)
