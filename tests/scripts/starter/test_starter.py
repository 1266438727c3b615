"""How the starter is built: the head that its fine-tuning starts from, and the views that it learns from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle
import pytest
from paddle import nn
from PIL import Image
from starter import initial_network, views
from starter.linear_head import as_logits
from starter.scoring import PREPROCESS
from starter.starter import visible_share

from mlcls_ray.datasets.formats import Dataset
from mlcls_ray.images.decode import decode
from mlcls_ray.images.preprocess import to_tensor
from mlcls_ray.models.networks.efficientnet_lite import EfficientNetLite0


@pytest.fixture
def pooled(demo: Path) -> Dataset:
    paths = sorted(demo.glob("*.jpg"))[:6]
    return Dataset(paths, np.random.default_rng(0).random((len(paths), 3)).astype(np.float32))


@pytest.mark.slow
def test_the_fitted_head_predicts_the_mean_of_the_targets(pooled: Dataset) -> None:
    """A regression with an intercept: the mean of its logits over the fitted images is the mean of the targets' logits."""
    paddle.seed(0)
    backbone = EfficientNetLite0()
    maps = np.random.default_rng(1).integers(0, 256, (len(pooled.paths), 3, 12, 12)).astype(np.uint8)
    head = initial_network.fit_head(backbone, pooled, maps)
    backbone.eval()
    pixels = np.stack([PREPROCESS.to_pixels(decode(path.read_bytes()).image) for path in pooled.paths])
    with paddle.no_grad():
        logits, local = head.with_maps(backbone(paddle.to_tensor(to_tensor(pixels, PREPROCESS))))
    expected_local = as_logits(maps / np.float32(255), initial_network.LOCAL_CLIP)
    np.testing.assert_allclose(local.numpy().mean(axis=(0, 2, 3)), expected_local.mean(axis=(0, 2, 3)), atol=1e-2)
    expected = as_logits(pooled.targets, initial_network.CLIP).mean(axis=0)
    np.testing.assert_allclose(logits.numpy().mean(axis=0), expected, atol=1e-2)


def test_views_are_the_same_each_time(pooled: Dataset, tmp_path: Path) -> None:
    first, second = (views.write_views(pooled.paths, tmp_path / name) for name in ("first", "second"))
    assert [view.row for view in first] == sorted(list(range(len(pooled.paths))) * (views.WHOLE + views.CROPS))
    assert [view.path.read_bytes() for view in first] == [view.path.read_bytes() for view in second]
    assert {Image.open(view.path).size for view in first} == {(views.SIZE, views.SIZE)}


def test_a_view_shows_its_box(pooled: Dataset, tmp_path: Path) -> None:
    for view in views.write_views(pooled.paths, tmp_path):
        image = Image.open(pooled.paths[view.row]).convert("RGB")
        left, top, right, bottom = (view.box * np.tile(image.size, 2)).tolist()
        assert (right - left) * (bottom - top) >= 0.999 * views.MIN_CROP_AREA * image.width * image.height
        expected = image.resize((20, 20), Image.Resampling.BILINEAR, (left, top, right, bottom)).convert("L")
        actual = Image.open(view.path).resize((20, 20)).convert("L")
        assert np.corrcoef(np.asarray(expected).ravel(), np.asarray(actual).ravel())[0, 1] > 0.8


def test_visible_share() -> None:
    """Visible as in the whole, half, not at all, and a class that was never detected."""
    whole, part = np.array([0.8, 0.8, 0.5, 0.0], np.float32), np.array([0.8, 0.4, 0.0, 0.0], np.float32)
    np.testing.assert_allclose(visible_share(whole, part), [1.0, 0.5, 0.0, 1.0])


def test_folding_norm_scales_keeps_the_function() -> None:
    paddle.seed(0)
    backbone = EfficientNetLite0()
    for layer in backbone.sublayers():
        if isinstance(layer, nn.BatchNorm2D):
            for parameter in (layer.weight, layer._variance, layer._mean):
                parameter.set_value(paddle.rand(parameter.shape) + 0.5)
    backbone.eval()
    x = paddle.rand([1, 3, 64, 64])
    with paddle.no_grad():
        before = backbone(x).numpy()
        after = initial_network.fold_norm_scales(backbone)(x).numpy()
    assert before.std() > 0.01
    np.testing.assert_allclose(after, before, atol=1e-3)
