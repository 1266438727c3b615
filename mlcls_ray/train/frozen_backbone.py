"""Run the frozen blocks of a backbone by the inference engine: several times as fast on a CPU, where Paddle trains without oneDNN."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import paddle
from paddle import nn

from mlcls_ray.devices import Device
from mlcls_ray.engines.paddle import PaddleEngine
from mlcls_ray.images.preprocess import Preprocess, to_tensor
from mlcls_ray.models.artifact import load_model
from mlcls_ray.models.convert.paddle import export_network, write_config
from mlcls_ray.models.heads import LogitClassifier, PooledLocalHead
from mlcls_ray.train.freezing import frozen_parameters

THREADS = 1
"""The number that training uses: Paddle sets it for the whole process."""


class FrozenPrefix:
    """The first `block_count` blocks of a backbone: uint8 pixels [N, H, W, 3] → feature maps float32 [N, C, h, w]."""

    def __init__(self, network: LogitClassifier, block_count: int, preprocess: Preprocess) -> None:
        self.block_count = block_count
        blocks = network.backbone.sequence()[:block_count]
        with tempfile.TemporaryDirectory(prefix="mlcls-frozen-") as temporary:
            folder = Path(temporary)
            export_network(nn.Sequential(*blocks), preprocess.input_size[0], folder)
            write_config(folder, "frozen_prefix", preprocess, ["features"], 0.5)
            self._engine = PaddleEngine(load_model(folder), Device("cpu"), THREADS)

    def features(self, pixels: np.ndarray) -> np.ndarray:
        return self._engine.run(pixels)


def make_frozen_prefix(
    network: nn.Layer, freeze_fraction: float, device: Device, preprocess: Preprocess
) -> FrozenPrefix | None:
    """Make the prefix of blocks that are never trained; None if there are none, the device is not a CPU, or the backbone has no blocks."""
    if not device.is_cpu or not isinstance(network, LogitClassifier):
        return None
    names = frozen_parameters(network, freeze_fraction)
    frozen = {id(parameter) for name, parameter in network.named_parameters() if name in names}
    blocks = network.backbone.sequence()
    block_count = next(
        (
            place
            for place, block in enumerate(blocks)
            if any(id(parameter) not in frozen for parameter in block.parameters())
        ),
        len(blocks),
    )
    return FrozenPrefix(network, block_count, preprocess) if block_count else None


def forward(
    network: nn.Layer, prefix: FrozenPrefix | None, pixels: np.ndarray, preprocess: Preprocess
) -> paddle.Tensor:
    """Compute logits float32 [N, C] of uint8 pixels [N, H, W, 3]; with a prefix, `network` computes only the blocks after it."""
    if prefix is None:
        return network(paddle.to_tensor(to_tensor(pixels, preprocess)))
    assert isinstance(network, LogitClassifier)
    return network.head(_feature_maps(network, prefix, pixels, preprocess))


def forward_with_maps(
    network: nn.Layer, prefix: FrozenPrefix | None, pixels: np.ndarray, preprocess: Preprocess
) -> tuple[paddle.Tensor, paddle.Tensor]:
    """Compute logits as `forward`, and the head's local logits float32 [N, C, h, w]."""
    assert isinstance(network, LogitClassifier) and isinstance(network.head, PooledLocalHead)
    return network.head.with_maps(_feature_maps(network, prefix, pixels, preprocess))


def _feature_maps(
    network: LogitClassifier, prefix: FrozenPrefix | None, pixels: np.ndarray, preprocess: Preprocess
) -> paddle.Tensor:
    if prefix is None:
        return network.backbone(paddle.to_tensor(to_tensor(pixels, preprocess)))
    x = paddle.to_tensor(prefix.features(pixels))
    for block in network.backbone.sequence()[prefix.block_count :]:
        x = block(x)
    return x
