"""The teacher's graph, read into OpenVINO: its operations as Paddle computes them."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from paddle.nn import functional as nnf

from mlcls_ray.training.teacher import HEAT_MAPS, INPUT, SIZE, Teacher

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
        fused_ops={"list": {"s": [_text(one) for one in fused]}},
    )


@pytest.fixture
def tensors() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    shapes = {
        "stem/kernel": (3, 3, 3, 4), "stem/bias": (4,), "deep/kernel": (5, 5, 4, 1), "deep/bias": (4,),
        "squeeze/kernel": (1, 1, 4, 4), "three": (), "heat/kernel": (1, 1, 8, CLASSES),
    }  # fmt: skip
    made = {name: random.normal(size=shape).astype(np.float16) / 8 for name, shape in shapes.items()}
    made["three"] = np.array(3.0, np.float16)
    return made


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
    ]
    manifest = [
        {"name": name, "shape": list(value.shape), "dtype": "float32", "quantization": {"dtype": "float16"}}
        for name, value in tensors.items()
    ]
    (folder / "weights.bin").write_bytes(b"".join(value.tobytes() for value in tensors.values()))
    graph = {"modelTopology": {"node": nodes}, "weightsManifest": [{"paths": ["weights.bin"], "weights": manifest}]}
    (folder / "graph.json").write_text(json.dumps(graph))
    return folder / "graph.json"


def test_it_scores_as_paddle_does(tmp_path: Path, tensors: dict[str, np.ndarray]) -> None:
    images = [np.random.default_rng(one).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8) // 128 for one in range(2)]
    given = Teacher(write_graph(tmp_path, tensors)).scores(images)

    w = {name: paddle.to_tensor(value.astype(np.float32)) for name, value in tensors.items()}
    x = paddle.to_tensor(np.stack(images).transpose(0, 3, 1, 2).astype(np.float32))
    stem = nnf.conv2d(nnf.pad(x, [0, 1, 0, 1]), w["stem/kernel"].transpose([3, 2, 0, 1]), w["stem/bias"], 2)
    swish = stem * nnf.relu6(stem + 3)
    kernel = w["deep/kernel"].transpose([2, 3, 0, 1])
    deep = nnf.relu(nnf.conv2d(nnf.pad(swish, [1, 2, 1, 2]), kernel, w["deep/bias"], 2, groups=4))
    gate = nnf.conv2d(deep.mean([2, 3], keepdim=True), w["squeeze/kernel"].transpose([3, 2, 0, 1]))
    up = nnf.interpolate(deep * gate, scale_factor=2, mode="bilinear", align_corners=False, align_mode=1)
    heat = nnf.conv2d(paddle.concat([swish, nnf.relu(up)], 1), w["heat/kernel"].transpose([3, 2, 0, 1]))
    expected = nnf.sigmoid(heat).max([2, 3]).numpy()

    assert given.shape == (2, CLASSES)
    np.testing.assert_allclose(given, expected, atol=0.02)  # bfloat16 where the processor has it
    assert expected.std() > 0.05, "scores that all are 0 or 1 would agree whatever was computed"


def test_another_graph_is_refused(tmp_path: Path, tensors: dict[str, np.ndarray]) -> None:
    path = write_graph(tmp_path, tensors)
    path.write_text(path.read_text().replace('"Relu6"', '"Elu"'))
    with pytest.raises(ValueError, match="operation 'Elu' of 'gate' is none of CenterNet's"):
        Teacher(path)
