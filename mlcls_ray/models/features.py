"""The pooled features of a network as a second output beside its scores, for similarity search.

An exported program gives scores only. In its ONNX graph the backbone's last feature map [N, D, h, w] is found by how a head uses it:
the pooled heads take its maximum and its average over the positions, ML-Decoder projects it by a convolution, other heads average it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mlcls_ray.errors import UsageError
from mlcls_ray.models.artifact import Model
from mlcls_ray.models.cache import once
from mlcls_ray.models.convert.onnx import cached_onnx

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

FEATURES = "features"
POSITIONS = [2, 3]
"""The axes of a feature map over which it is pooled."""


def converted_with_features(model: Model) -> Path:
    """Convert a model to ONNX with a second output `features`, float32 [N, D], in this machine's cache.

    Raises:
        UsageError: paddle2onnx is not installed, or the graph has no feature map of a known form.
        RunError: the model cannot be converted.
    """
    plain = cached_onnx(model)

    def make(path: Path) -> None:
        import onnx

        loaded = onnx.shape_inference.infer_shapes(onnx.load(str(plain)))
        add_features(loaded.graph, model.name)
        onnx.save(loaded, str(path))

    return once(plain.with_name(f"{plain.stem}-{FEATURES}.onnx"), make)


def add_features(graph: GraphProto, name: str) -> None:
    """Add the average of the last feature map over its positions to a graph's outputs, in place. `name` is the model's, for messages.

    Raises:
        UsageError: there is no feature map of a known form.
    """
    from onnx import TensorProto, helper

    shapes = {
        tensor.name: [side.dim_value for side in tensor.type.tensor_type.shape.dim] for tensor in graph.value_info
    }
    feature_map = find_feature_map(list(graph.node), shapes)
    if feature_map is None:
        raise UsageError(f"embeddings: model '{name}' has no feature map that its head pools or projects")
    graph.node.append(helper.make_node("ReduceMean", [feature_map], [FEATURES], axes=POSITIONS, keepdims=0))
    graph.output.append(helper.make_tensor_value_info(FEATURES, TensorProto.FLOAT, ["N", shapes[feature_map][1]]))


def find_feature_map(nodes: list[NodeProto], shapes: dict[str, list[int]]) -> str | None:
    """Return the name of the tensor float32 [N, D, h, w] that the head starts from.

    Args:
        shapes: the known shapes of tensors, with 0 for an unknown side.
    """
    averaged = [str(node.input[0]) for node in nodes if _pools(node, "GlobalAveragePool", "ReduceMean")]
    maximized = [str(node.input[0]) for node in nodes if _pools(node, "GlobalMaxPool", "ReduceMax")]
    if maximized:  # local logits are maximized too, but not averaged
        return next((name for name in maximized if name in averaged), maximized[-1])
    convolutions = [node for node in nodes if node.op_type == "Conv"]
    spatial = [node for node in convolutions if _position_count(shapes.get(node.input[0], [])) > 1]
    # ML-Decoder ends in a convolution at one position, with one group per class; those of squeeze-and-excitation have one group.
    if spatial and convolutions[-1] is not spatial[-1] and _group_count(convolutions[-1]) > 1:
        return str(spatial[-1].input[0])
    return averaged[-1] if averaged else None


def _pools(node: NodeProto, pooling: str, reduction: str) -> bool:
    """Tell whether a node pools over the positions, by an operator of its own or by a reduction over the axes 2 and 3."""
    if node.op_type == reduction:
        return any(attribute.name == "axes" and list(attribute.ints) == POSITIONS for attribute in node.attribute)
    return bool(node.op_type == pooling)


def _position_count(shape: list[int]) -> int:
    return shape[2] * shape[3] if len(shape) == 4 else 0


def _group_count(node: NodeProto) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
