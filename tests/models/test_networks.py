"""EfficientNet-Lite0: its structure; and heads that give the same scores after export and reload."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle
import pytest
from paddle import nn

from mlcls_ray.devices import parse_device
from mlcls_ray.engines.paddle import PaddleEngine
from mlcls_ray.images.preprocess import Preprocess, normalize
from mlcls_ray.models.artifact import load_model
from mlcls_ray.models.convert.paddle import export_network, write_config
from mlcls_ray.models.heads import TAIL_END, MultiLabelClassifier, PooledLinearHead, PooledLocalHead
from mlcls_ray.models.networks.efficientnet_lite import FEATURE_CHANNELS, EfficientNetLite0, same_padding


def test_efficientnet_lite0_has_the_published_structure() -> None:
    """4,652,008 parameters with the 1000-class layer, batch-norm statistics left out (4.65 M published)."""
    backbone = EfficientNetLite0()
    trained = sum(int(np.prod(parameter.shape)) for parameter in backbone.parameters() if not parameter.stop_gradient)
    assert trained + FEATURE_CHANNELS * 1000 + 1000 == 4_652_008
    backbone.eval()
    assert backbone(paddle.zeros([2, 3, 64, 96])).shape == [2, FEATURE_CHANNELS, 2, 3]


@pytest.mark.parametrize(
    ("kernel", "stride", "expected"), [(3, 2, [0, 1]), (5, 2, [1, 2]), (3, 1, [1, 1]), (5, 1, [2, 2])]
)
def test_padding_is_tensorflows(kernel: int, stride: int, expected: list[int]) -> None:
    assert same_padding(kernel, stride) == expected * 2


@pytest.mark.parametrize(("head", "tail"), [(PooledLinearHead, 0.0), (PooledLocalHead, 0.0), (PooledLocalHead, 0.4)])
def test_export_and_reload_give_the_same_scores(tmp_path: Path, head: type[nn.Layer], tail: float) -> None:
    paddle.seed(0)
    network = MultiLabelClassifier(EfficientNetLite0(), head(FEATURE_CHANNELS, 5), tail)
    network.eval()
    preprocess = Preprocess(size=(64, 64), backend="pil", interpolation="BILINEAR")
    export_network(network, 64, tmp_path)
    write_config(tmp_path, "test", preprocess, [*"abcde"], 0.5)
    model = load_model(tmp_path)
    assert model.preprocess == preprocess
    pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    with paddle.no_grad():
        expected = network(
            paddle.to_tensor(normalize(pixels, preprocess, np.empty((3, 3, 64, 64), np.float32)))
        ).numpy()
    actual = PaddleEngine(model, parse_device("cpu"), threads=1).score(pixels)
    assert np.abs(actual - expected).max() <= 1e-5
    with paddle.no_grad():
        x = paddle.to_tensor(normalize(pixels, preprocess, np.empty((3, 3, 64, 64), np.float32)))
        logits = network.head(network.backbone(x)).numpy()
    tailed = logits - tail * np.exp(np.minimum(-logits, TAIL_END))
    np.testing.assert_allclose(actual, 1 / (1 + np.exp(-tailed)), atol=1e-4)
