"""ONNX graphs for accelerators: pixels go in as they were decoded, uint8 [N, H, W, 3], and the graph normalizes them. In fp32 or fp16."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from mlcls_ray.errors import UsageError
from mlcls_ray.images.preprocess import Preprocess
from mlcls_ray.models.artifact import Model
from mlcls_ray.models.cache import once
from mlcls_ray.models.convert.attention import fuse_attention
from mlcls_ray.models.convert.narrow import narrow_tokens
from mlcls_ray.models.convert.onnx import MISSING, MISSING_RUNTIME, cached_onnx

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

GRAPH_VERSION = 1
"""Increased when the graph is made in another way, so that an older one in the cache is not used."""
PIXELS, BATCH = "pixels", "batch"
"""Names of the graph's input, and of its first side."""
ELEMENTWISE = ("Sigmoid", "Exp", "Clip", "Neg", "Mul", "Sub", "Min", "Max")
"""Operators behind the logits. They stay in fp32 in an fp16 graph: they cost nothing, and a score near 1 would lose digits."""


def cached_device_graph(model: Model, number_format: Literal["fp32", "fp16"], plain: Path | None = None) -> Path:
    """Make the graph for accelerators in this machine's cache, beside the plain ONNX graph.

    Its name holds what decides it: the plain graph, the number format, the normalisation of `inference.yml` and GRAPH_VERSION.

    Args:
        plain: an ONNX graph of the model with the input float32 [N, 3, H, W]; None: the converted model.

    Raises:
        UsageError: onnx or onnxruntime is not installed, or paddle2onnx is not and the cache lacks the plain graph.
        RunError: the model cannot be converted.
    """
    plain = plain or cached_onnx(model)
    preprocess = model.preprocess
    decides = (GRAPH_VERSION, preprocess.input_size, preprocess.scale, preprocess.mean, preprocess.std)
    key = hashlib.sha256(repr(decides).encode()).hexdigest()[:8]

    def make(path: Path) -> None:
        write_device_graph(plain, preprocess, number_format, path)

    return once(plain.with_name(f"{plain.stem}-{number_format}-{key}.onnx"), make)


def write_device_graph(plain: Path, preprocess: Preprocess, number_format: Literal["fp32", "fp16"], path: Path) -> None:
    """Write the graph for accelerators that is made from a plain one. Raises UsageError where onnx or onnxruntime is not installed."""
    try:
        import onnx
    except ImportError:
        raise UsageError(f"ONNX {MISSING}") from None
    loaded = onnx.shape_inference.infer_shapes(
        onnx.load(str(plain))
    )  # before an operator that it does not know is in it
    fuse_attention(loaded)
    narrow_tokens(loaded)
    if number_format == "fp16":
        loaded = to_half(loaded)
    add_normalization(loaded.graph, preprocess)
    onnx.save(loaded, str(path))


def to_half(model: ModelProto) -> ModelProto:
    """Convert a graph to fp16 between its inputs and outputs, which stay float32; so do the operators behind the logits.

    Raises:
        UsageError: onnxruntime is not installed.
    """
    try:
        from onnxruntime.transformers.float16 import convert_float_to_float16
    except ImportError:
        raise UsageError(f"a graph in fp16 {MISSING_RUNTIME}") from None

    for number, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{number}"  # they are excepted by name, and names may be missing or repeated
    kept = _behind_logits(model.graph)
    converted: ModelProto = convert_float_to_float16(model, keep_io_types=True, node_block_list=kept)
    _drop_round_trips(converted.graph, kept)
    return converted


def _drop_round_trips(graph: GraphProto, kept: Sequence[str]) -> None:
    """Remove the casts to fp16 and back behind nodes that were kept in fp32, in place. The converter leaves them; they round the scores."""
    from onnx import TensorProto, helper

    made = {output for node in graph.node if node.name in kept for output in node.output}
    halves = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Cast" and node.input[0] in made}
    back = [node for node in graph.node if node.op_type == "Cast" and node.input[0] in halves]
    back = [node for node in back if helper.get_attribute_value(node.attribute[0]) == TensorProto.FLOAT]
    same = {node.output[0]: halves[node.input[0]] for node in back}
    outputs = {same[output.name]: output.name for output in graph.output if output.name in same}
    for node in back:
        graph.node.remove(node)
    for node in graph.node:
        for number, name in enumerate(node.input):
            name = same.get(name, name)
            node.input[number] = outputs.get(name, name)
        for number, name in enumerate(node.output):
            node.output[number] = outputs.get(name, name)
    used = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    for node in [node for node in graph.node if node.output[0] in halves and node.output[0] not in used]:
        graph.node.remove(node)


def _behind_logits(graph: GraphProto) -> list[str]:
    """Name the elementwise nodes between the logits and the scores, the graph's first output."""
    maker = {output: node for node in graph.node for output in node.output}
    names: dict[str, None] = {}
    waiting = [graph.output[0].name]
    while waiting:
        node = maker.get(waiting.pop())
        if node is not None and node.op_type in ELEMENTWISE and node.name not in names:
            names[node.name] = None
            waiting += node.input
    return list(names)


def add_normalization(graph: GraphProto, preprocess: Preprocess) -> None:
    """Put Cast → Mul → Add → Transpose before a graph, in place: one multiply and one add per channel in fp32, as `normalize` does."""
    from onnx import TensorProto, helper, numpy_helper

    width, height = preprocess.input_size
    scale, mean, std = preprocess.scale, np.array(preprocess.mean), np.array(preprocess.std)
    constants = {
        "normalize_alpha": (scale / std).astype(np.float32),
        "normalize_beta": (-mean / std).astype(np.float32),
    }
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    (tensor,) = graph.input
    nodes = [
        helper.make_node("Cast", [PIXELS], ["normalize_float"], "normalize_cast", to=TensorProto.FLOAT),
        helper.make_node("Mul", ["normalize_float", "normalize_alpha"], ["normalize_scaled"], "normalize_mul"),
        helper.make_node("Add", ["normalize_scaled", "normalize_beta"], ["normalize_nhwc"], "normalize_add"),
        helper.make_node("Transpose", ["normalize_nhwc"], [tensor.name], "normalize_transpose", perm=[0, 3, 1, 2]),
    ]
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *rest])
    graph.input.remove(tensor)
    graph.input.append(helper.make_tensor_value_info(PIXELS, TensorProto.UINT8, [BATCH, height, width, 3]))
