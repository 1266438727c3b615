"""The teacher's graph in OpenVINO, compared with the same operations in Paddle; and its detections."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from paddle.nn import functional as nnf
from starter.teacher import EXTENTS, HEAT_MAPS, INPUT, MIN_SCORE, SIZE, STRIDE, Detections, Teacher

CLASSES = 3


def _node(name: str, kind: str, *inputs: str, **attributes: Any) -> dict[str, Any]:
    return {"name": name, "op": kind, "input": list(inputs), "attr": attributes}


def _text(word: str) -> str:
    return base64.b64encode(word.encode()).decode()


def _convolution(name: str, kind: str, x: str, stride: int, padding: str, *fused: str) -> dict[str, Any]:
    bias = [f"{name}/bias"] if fused else []
    return _node(
        name,
        kind,
        x,
        f"{name}/kernel",
        *bias,
        strides={"list": {"i": ["1", str(stride), str(stride), "1"]}},
        padding={"s": _text(padding)},
        fused_ops={"list": {"s": [_text(operation) for operation in fused]}},
    )


@pytest.fixture
def tensors() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    shapes = {
        "stem/kernel": (3, 3, 3, 4), "stem/bias": (4,), "deep/kernel": (5, 5, 4, 1), "deep/bias": (4,),
        "squeeze/kernel": (1, 1, 4, 4), "three": (), "heat/kernel": (1, 1, 8, CLASSES), "reach/kernel": (1, 1, 8, 4),
    }  # fmt: skip
    values = {name: random.normal(size=shape).astype(np.float16) / 8 for name, shape in shapes.items()}
    values["three"] = np.array(3.0, np.float16)
    return values


def write_graph(folder: Path, tensors: dict[str, np.ndarray]) -> Path:
    nodes = [
        _node(INPUT, "Placeholder"),
        _convolution("stem", "_FusedConv2D", INPUT, 2, "SAME", "BiasAdd"),
        _node("plus", "Add", "stem", "three"),
        _node("gate", "Relu6", "plus"),
        _node("swish", "Mul", "stem", "gate"),
        _convolution("deep", "FusedDepthwiseConv2dNative", "swish", 2, "SAME", "BiasAdd", "Relu"),
        _node("mean", "Mean", "deep", "positions"),
        _convolution("squeeze", "Conv2D", "mean", 1, "VALID"),
        _node("excite", "Mul", "squeeze", "deep"),
        _node("up", "ResizeBilinear", "excite", "size"),
        _node("rectified", "Relu", "up"),
        _node("both", "ConcatV2", "swish", "rectified", "axis"),
        _convolution("heat", "_FusedConv2D", "both", 1, "VALID"),
        _node("score", "Sigmoid", "heat"),
        _node(HEAT_MAPS, "Identity", "score"),
        _convolution("reach", "_FusedConv2D", "both", 1, "VALID"),
        _node(EXTENTS, "Identity", "reach"),
    ]
    manifest = [
        {"name": name, "shape": list(value.shape), "dtype": "float32", "quantization": {"dtype": "float16"}}
        for name, value in tensors.items()
    ]
    (folder / "weights.bin").write_bytes(b"".join(value.tobytes() for value in tensors.values()))
    graph = {"modelTopology": {"node": nodes}, "weightsManifest": [{"paths": ["weights.bin"], "weights": manifest}]}
    (folder / "graph.json").write_text(json.dumps(graph))
    return folder / "graph.json"


def test_the_detections_are_those_that_paddle_computes(tmp_path: Path, tensors: dict[str, np.ndarray]) -> None:
    images = [np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8) // 128 for seed in range(2)]
    detections = Teacher(write_graph(tmp_path, tensors)).detect(images)

    w = {name: paddle.to_tensor(value.astype(np.float32)) for name, value in tensors.items()}
    x = paddle.to_tensor(np.stack(images).transpose(0, 3, 1, 2).astype(np.float32))
    stem = nnf.conv2d(nnf.pad(x, [0, 1, 0, 1]), w["stem/kernel"].transpose([3, 2, 0, 1]), w["stem/bias"], 2)
    swish = stem * nnf.relu6(stem + 3)
    kernel = w["deep/kernel"].transpose([2, 3, 0, 1])
    deep = nnf.relu(nnf.conv2d(nnf.pad(swish, [1, 2, 1, 2]), kernel, w["deep/bias"], 2, groups=4))
    gate = nnf.conv2d(deep.mean([2, 3], keepdim=True), w["squeeze/kernel"].transpose([3, 2, 0, 1]))
    up = nnf.interpolate(deep * gate, scale_factor=2, mode="bilinear", align_corners=False, align_mode=1)
    both = paddle.concat([swish, nnf.relu(up)], 1)
    heat = nnf.sigmoid(nnf.conv2d(both, w["heat/kernel"].transpose([3, 2, 0, 1]))).numpy()
    reach = nnf.conv2d(both, w["reach/kernel"].transpose([3, 2, 0, 1])).numpy()

    assert heat.max(axis=(2, 3)).std() > 0.05, "if all scores were 0 or 1, wrong operations could agree too"
    for image, scores, extents in zip(detections, heat, reach, strict=True):
        # OpenVINO computes in bfloat16 where the processor has it
        np.testing.assert_allclose(image.max_scores(CLASSES), scores.max(axis=(1, 2)), atol=0.02)
        assert (image.scores > MIN_SCORE).all() and (np.diff(image.scores) >= 0).all()
        assert image.boxes.shape == (len(image.scores), 4)
        best = image.classes[-1]
        y, x_ = np.unravel_index(np.argmax(scores[best]), scores[best].shape)
        left, up_, right, down = extents[:, y, x_]
        expected = np.array([x_ * STRIDE - left, y * STRIDE - up_, x_ * STRIDE + right, y * STRIDE + down]) / SIZE
        candidates = image.boxes[image.classes == best]
        assert np.abs(candidates - expected).max(axis=1).min() < 0.01


def test_scores_and_score_maps() -> None:
    """A large object over a quarter of the image, a better one within it, and one that is smaller than a position."""
    boxes = np.array([[0.3, 0.3, 0.32, 0.32], [0.5, 0.0, 1.0, 0.5], [0.75, 0.0, 1.2, 0.24]], np.float32)
    image = Detections(np.array([1, 0, 0]), np.array([0.2, 0.6, 0.9], np.float32), boxes)
    np.testing.assert_allclose(image.max_scores(3), [0.9, 0.2, 0.0])
    maps = image.score_map(3, 4)
    np.testing.assert_allclose(maps[0], [[0, 0, 0.6, 0.9], [0, 0, 0.6, 0.6], [0] * 4, [0] * 4])
    assert maps[1, 1, 1] == pytest.approx(0.2)
    assert (maps[1] > 0).sum() == 1 and not maps[2].any()


def test_detections_in_a_crop() -> None:
    """The lower right quarter: an object inside it, one that is inside by a quarter, and one outside."""
    boxes = np.array([[0.0, 0.0, 0.4, 0.4], [0.5, 0.75, 1.0, 1.0], [0.25, 0.25, 0.75, 0.75]], np.float32)
    image = Detections(np.array([0, 1, 2]), np.array([0.3, 0.6, 0.8], np.float32), boxes)
    crop = image.crop(np.array([0.5, 0.5, 1.0, 1.0]))
    assert crop.classes.tolist() == [2, 1]
    np.testing.assert_allclose(crop.scores, [0.4, 0.6], atol=1e-6)
    np.testing.assert_allclose(crop.boxes, [[-0.5, -0.5, 0.5, 0.5], [0.0, 0.5, 1.0, 1.0]], atol=1e-6)
    whole = image.crop(np.array([0.0, 0.0, 1.0, 1.0]))
    np.testing.assert_allclose(whole.max_scores(3), image.max_scores(3))
    np.testing.assert_allclose(whole.score_map(3, 4), image.score_map(3, 4))


def test_another_graph_is_refused(tmp_path: Path, tensors: dict[str, np.ndarray]) -> None:
    path = write_graph(tmp_path, tensors)
    path.write_text(path.read_text().replace('"Relu6"', '"Elu"'))
    with pytest.raises(ValueError, match="operation 'Elu' of 'gate' is not one of CenterNet's"):
        Teacher(path)
