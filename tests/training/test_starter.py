"""How the starter is made: the head that its fine-tuning starts from, and the views that it learns from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle
import pytest
from PIL import Image

from mlcls_ray.images.decode import decode
from mlcls_ray.images.preprocess import to_tensor
from mlcls_ray.models.networks.efficientnet_lite import EfficientNetLite0
from mlcls_ray.training import starter
from mlcls_ray.training.dataset import Dataset
from mlcls_ray.training.linear_head import as_logits


@pytest.fixture
def pooled(demo: Path) -> Dataset:
    paths = sorted(demo.glob("*.jpg"))[:6]
    return Dataset(paths, np.random.default_rng(0).random((len(paths), 3)).astype(np.float32))


def test_the_start_hits_the_mean(pooled: Dataset) -> None:
    """A regression with an intercept: over the images that it was fitted on, the mean of its logits is the mean of the targets'."""
    paddle.seed(0)
    backbone = EfficientNetLite0()
    maps = np.random.default_rng(1).integers(0, 256, (len(pooled.paths), 3, 12, 12)).astype(np.uint8)
    head = starter.start_head(backbone, pooled, maps)
    backbone.eval()
    pixels = np.stack([starter.PREPROCESS.to_pixels(decode(path.read_bytes()).image) for path in pooled.paths])
    with paddle.no_grad():
        logits, local = head.with_maps(backbone(paddle.to_tensor(to_tensor(pixels, starter.PREPROCESS))))
    wanted = as_logits(maps / np.float32(255), starter.LOCAL_MARGIN)
    np.testing.assert_allclose(local.numpy().mean(axis=(0, 2, 3)), wanted.mean(axis=(0, 2, 3)), atol=1e-2)
    expected = as_logits(pooled.targets, starter.MARGIN).mean(axis=0)
    np.testing.assert_allclose(logits.numpy().mean(axis=0), expected, atol=1e-2)


def test_views_are_the_same_each_time(pooled: Dataset, tmp_path: Path) -> None:
    first, second = (starter.write_views(pooled, tmp_path / name) for name in ("first", "second"))
    assert len(first) == starter.CROPS * len(pooled.paths)
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert {Image.open(path).size for path in first} == {(starter.VIEW_SIZE, starter.VIEW_SIZE)}
