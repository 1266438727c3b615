"""The network that the fine-tuning starts from: ImageNet weights, and a head that is fitted on their frozen features."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import paddle
from paddle import nn
from safetensors.numpy import load_file

from mlcls_ray.datasets.formats import Dataset
from mlcls_ray.models.heads import PooledLocalHead, largest, pool
from mlcls_ray.models.networks.efficientnet_lite import BATCH_NORM_EPSILON, FEATURE_CHANNELS, EfficientNetLite0
from starter.linear_head import Moments, as_logits
from starter.scoring import export, run_batches

L2, LOCAL_L2 = 0.6, 0.5
CLIP, LOCAL_CLIP = 0.03, 0.02
"""A teacher's scores are clipped to [clip, 1 - clip] before their logits are learned: 0.01 to 0.05 work about equally well."""


def load_backbone(weights: Path) -> EfficientNetLite0:
    """Load ImageNet weights; the file has them in the order of the backbone's parameters."""
    backbone = EfficientNetLite0()
    tensors = load_file(weights)
    parameters = backbone.state_dict()
    for (name, parameter), key in zip(parameters.items(), sorted(tensors), strict=False):
        if tuple(parameter.shape) != tensors[key].shape:
            raise ValueError(f"{key} {tensors[key].shape} does not fit {name} {tuple(parameter.shape)}")
        parameter.set_value(tensors[key])
    return backbone


def fold_norm_scales(backbone: EfficientNetLite0) -> EfficientNetLite0:
    """Move the factor of each batch norm into the convolution before it, in place: a step then moves all channels by similar amounts.

    The function that the backbone computes does not change.
    """
    layers = [layer for layer in backbone.sublayers() if isinstance(layer, nn.Conv2D | nn.BatchNorm2D)]
    for convolution, norm in zip(layers[::2], layers[1::2], strict=True):
        factor = norm.weight / (norm._variance + BATCH_NORM_EPSILON).sqrt()
        convolution.weight.set_value(convolution.weight * factor.reshape([-1, 1, 1, 1]))
        norm._mean.set_value(norm._mean * factor)
        norm._variance.set_value(paddle.full_like(norm._variance, 1 - BATCH_NORM_EPSILON))
        norm.weight.set_value(paddle.ones_like(norm.weight))
    return backbone


def fit_head(backbone: EfficientNetLite0, pooled: Dataset, maps: np.ndarray) -> PooledLocalHead:
    """Fit the head by ridge regression: its local part on `maps` uint8 [N, C, h, w], then its pooled part on the rest."""
    head = PooledLocalHead(FEATURE_CHANNELS, pooled.targets.shape[1])
    local_moments: Moments | None = None
    for rows, features in read_features(backbone, pooled.paths):
        local_logits = as_logits(maps[rows] / np.float32(255), LOCAL_CLIP)
        flat_features, flat_logits = (
            values.transpose(0, 2, 3, 1).reshape(-1, values.shape[1]) for values in (features, local_logits)
        )
        local_moments = Moments.of(flat_features, flat_logits).plus(local_moments)
    assert local_moments is not None
    local_head = local_moments.ridge(LOCAL_L2)
    head.local.weight.set_value(local_head.weight.T[:, :, None, None])
    head.local.bias.set_value(local_head.bias)
    pooled_moments: Moments | None = None
    for rows, features in read_features(backbone, pooled.paths):
        with paddle.no_grad():
            x = paddle.to_tensor(features)
            remaining = as_logits(pooled.targets[rows], CLIP) - head.SHARE * largest(head.local(x)).numpy()
            pooled_moments = Moments.of(pool(x).numpy(), remaining).plus(pooled_moments)
    assert pooled_moments is not None
    pooled_head = pooled_moments.ridge(L2)
    head.fc.weight.set_value(pooled_head.weight)
    head.fc.bias.set_value(pooled_head.bias)
    return head


def read_features(backbone: EfficientNetLite0, paths: list[Path]) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield batches of feature maps float32 [n, 1280, h, w] with their rows, computed by the engine that will run the model."""
    channels = tuple(str(number) for number in range(FEATURE_CHANNELS))
    with tempfile.TemporaryDirectory() as folder:
        yield from run_batches(export(backbone, channels, 0.5, Path(folder), "features"), paths)
