"""Self-attention in an ONNX graph → one operator of ONNX Runtime, for which CUDA has one kernel that never writes the T×T weights.

`onnxruntime.transformers.optimizer` looks for separate projections of query, key and value, as PyTorch's exports have them. Networks here
(`networks/clip_vit.py`) have one for the three, which is just what `com.microsoft.Attention` takes:

    x → MatMul(W) → Add(b) → Reshape [N, T, 3, heads, size] → Transpose [3, N, heads, T, size] → query, key, value
    softmax(query · keyᵀ · scale) · value → Transpose → Reshape [N, T, heads · size]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

DOMAIN = "com.microsoft"
SPLIT, SWAP, JOIN = [2, 0, 3, 1, 4], [0, 1, 3, 2], [0, 2, 1, 3]
"""Permutations: into query, key and value; of the key's last two sides; of the heads back to their token."""


PASSING = ("Identity", "Dropout")
"""Operators that do nothing when a network is not trained."""


class Nodes(NamedTuple):
    """A graph's nodes by the tensors that they make and use, its constants, and the shapes of tensors as far as they are known."""

    maker: dict[str, NodeProto]
    user: dict[str, NodeProto]
    """The last one: the tensors inside of an attention have one user each."""
    constants: dict[str, np.ndarray]
    shapes: dict[str, list[int]]
    """0: a side that is not known."""

    def before(self, name: str, *kinds: str) -> NodeProto | None:
        """Return the node that makes a tensor, if it is of one of these kinds."""
        node = self.maker.get(name)
        while node is not None and node.op_type in PASSING:
            node = self.maker.get(node.input[0])
        return node if node is not None and node.op_type in kinds else None

    def after(self, name: str, kind: str) -> NodeProto | None:
        """Return the node that uses a tensor, if it is of this kind."""
        node = self.user.get(name)
        while node is not None and node.op_type in PASSING:
            node = self.user.get(node.output[0])
        return node if node is not None and node.op_type == kind else None

    def shape(self, reshape: NodeProto) -> list[int]:
        """Return the shape that a node gives a tensor; empty if it is not known. -1 and 0 are sides that are not known."""
        constant = self.constants.get(reshape.input[1])
        return self.shapes.get(reshape.output[0], []) if constant is None else [int(side) for side in constant]


class Part(NamedTuple):
    """A query, key or value: its number in the tensor that was split, and what happened to it on the way."""

    tensor: str
    number: int
    scale: float
    is_swapped: bool


def fuse_attention(model: ModelProto) -> int:
    """Replace each self-attention of a graph by `com.microsoft.Attention`, in place. Returns how many there were."""
    from onnx import helper

    nodes = read_nodes(model)
    replaced: dict[str, NodeProto] = {}
    for softmax in model.graph.node:
        if softmax.op_type == "Softmax":
            fused = _fused(softmax, nodes)
            if fused is not None:
                replaced[fused.output[0]] = fused
    if replaced:
        kept = [replaced.get(node.output[0], node) for node in model.graph.node]
        del model.graph.node[:]
        model.graph.node.extend(kept)
        remove_unused(model)
        if all(entry.domain != DOMAIN for entry in model.opset_import):
            model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return len(replaced)


def read_nodes(model: ModelProto) -> Nodes:
    """Index a graph by tensors."""
    from onnx import numpy_helper

    maker = {output: node for node in model.graph.node for output in node.output}
    user = {name: node for node in model.graph.node for name in node.input}
    shapes = {
        tensor.name: [side.dim_value for side in tensor.type.tensor_type.shape.dim] for tensor in model.graph.value_info
    }
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    return Nodes(maker, user, constants, shapes)


def remove_unused(model: ModelProto) -> None:
    """Remove nodes and initializers that nothing uses, in place. Nodes are in order, so one pass from the end is enough."""
    used = {output.name for output in model.graph.output}
    kept: list[NodeProto] = []
    for node in reversed(model.graph.node):
        if used.intersection(node.output):
            kept.append(node)
            used.update(node.input)
    initializers = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(reversed(kept))
    model.graph.initializer.extend(initializers)


def _fused(softmax: NodeProto, nodes: Nodes) -> NodeProto | None:
    """Return the operator that replaces the attention around a softmax, or None if it is not of the known form."""
    from onnx import helper

    weights, scale = _unscaled(softmax.input[0], nodes)
    product, context = nodes.before(weights, "MatMul"), nodes.after(softmax.output[0], "MatMul")
    if product is None or context is None or _attribute(softmax, "axis") not in (None, -1, 3):
        return None
    if nodes.before(context.input[0], "Softmax") is not softmax:
        return None
    query, key, value = (_part(name, nodes) for name in (*product.input, context.input[1]))
    if query is None or key is None or value is None:
        return None
    if (query.number, key.number, value.number) != (0, 1, 2) or len({query.tensor, key.tensor, value.tensor}) > 1:
        return None
    if (query.is_swapped, key.is_swapped, value.is_swapped) != (False, True, False) or value.scale != 1:
        return None
    projection = _projection(query.tensor, nodes)
    transpose = nodes.after(context.output[0], "Transpose")
    reshape = nodes.after(transpose.output[0], "Reshape") if transpose is not None else None
    if projection is None or transpose is None or reshape is None or _attribute(transpose, "perm") != JOIN:
        return None
    source, weight, bias, heads = projection
    if len(shape := nodes.shape(reshape)) != 3 or shape[-1] != nodes.constants[weight].shape[1] // 3:
        return None
    return helper.make_node(
        "Attention",
        [source, weight, bias],
        [reshape.output[0]],
        f"attention_{reshape.output[0]}",
        domain=DOMAIN,
        num_heads=heads,
        scale=scale * query.scale * key.scale,
    )


def _unscaled(name: str, nodes: Nodes) -> tuple[str, float]:
    """Go back over multiplications and divisions by one number. Returns the tensor before them, and what they multiply it by.

    Paddle's `scale` adds a bias after the product, which is 0 here.
    """
    scale = 1.0
    while (node := nodes.before(name, "Mul", "Div", "Add")) is not None:
        numbers = [number for number in (1, 0) if np.size(nodes.constants.get(node.input[number], ())) == 1]
        if not numbers or (node.op_type == "Div" and numbers[0] == 0):
            break
        factor = float(nodes.constants[node.input[numbers[0]]].item())
        if node.op_type == "Add" and factor != 0:
            break
        scale *= {"Mul": factor, "Div": 1 / factor if factor else 0.0, "Add": 1.0}[node.op_type]
        name = node.input[1 - numbers[0]]
    return name, scale


def _part(name: str, nodes: Nodes) -> Part | None:
    """Go back from a query, key or value to the tensor that it was taken from."""
    name, scale = _unscaled(name, nodes)
    swap = nodes.before(name, "Transpose")
    is_swapped = swap is not None and _attribute(swap, "perm") == SWAP
    if swap is not None and is_swapped:
        name, more = _unscaled(swap.input[0], nodes)
        scale *= more
    taken = nodes.before(name, "Squeeze", "Gather")
    if taken is None:
        return None
    if taken.op_type == "Gather":
        number = nodes.constants.get(taken.input[1])
        if number is None or number.size != 1 or _attribute(taken, "axis") not in (None, 0):
            return None
        return Part(taken.input[0], int(number.item()), scale, is_swapped)
    cut = nodes.before(taken.input[0], "Slice")
    values = [nodes.constants.get(value) for value in cut.input[1:4]] if cut is not None else []
    if cut is None or len(values) < 3 or any(value is None or value.size != 1 for value in values):
        return None
    start, end, axis = (int(value.item()) for value in values if value is not None)
    return Part(cut.input[0], start, scale, is_swapped) if (axis, end) == (0, start + 1) else None


def _projection(name: str, nodes: Nodes) -> tuple[str, str, str, int] | None:
    """Go back from the tensor with query, key and value to the projection: its input, weights, bias, and the number of heads."""
    transpose = nodes.before(name, "Transpose")
    reshape = nodes.before(transpose.input[0], "Reshape") if transpose is not None else None
    add = nodes.before(reshape.input[0], "Add") if reshape is not None else None
    if transpose is None or reshape is None or add is None or _attribute(transpose, "perm") != SPLIT:
        return None
    shape = nodes.shape(reshape)
    for product, bias in (tuple(add.input), tuple(reversed(add.input))):
        node = nodes.before(product, "MatMul")
        if node is not None and len(shape) == 5 and shape[2] == 3 and shape[3] > 0:
            weight = nodes.constants.get(node.input[1])
            flat = nodes.constants.get(bias)
            if weight is not None and flat is not None and weight.ndim == 2 and flat.shape == weight.shape[1:]:
                return node.input[0], node.input[1], bias, shape[3]
    return None


def _attribute(node: NodeProto, name: str) -> Any:
    from onnx import helper

    return next((helper.get_attribute_value(entry) for entry in node.attribute if entry.name == name), None)
