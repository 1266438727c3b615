"""The blocks of a backbone that never learn, run by the inference engine. It takes a fraction of the time that their training form takes on
a CPU: Paddle trains there without oneDNN.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import paddle
from paddle import nn

from mlcls_ray.devices import parse_device
from mlcls_ray.engines.paddle import PaddleEngine
from mlcls_ray.images.preprocess import Preprocess, to_tensor
from mlcls_ray.models.artifact import load_model
from mlcls_ray.models.convert.paddle import export_network, write_config
from mlcls_ray.models.heads import LogitClassifier as Trained
from mlcls_ray.models.heads import PooledLocalHead
from mlcls_ray.train.optimizer import parts_of

THREADS = 1
"""As training itself has: Paddle counts them for the whole process."""


class Front:
    """The first `count` blocks of a network: uint8 pixels [N, H, W, 3] → feature maps float32 [N, C, h, w]."""

    def __init__(self, network: Trained, count: int, preprocess: Preprocess) -> None:
        self.count = count
        with tempfile.TemporaryDirectory(prefix="mlcls-front-") as temporary:
            folder = Path(temporary)
            export_network(nn.Sequential(*network.backbone.sequence()[:count]), preprocess.input_size[0], folder)
            write_config(folder, "front", preprocess, ["features"], 0.5)
            self._engine = PaddleEngine(load_model(folder), parse_device("cpu"), THREADS)

    def features(self, pixels: np.ndarray) -> np.ndarray:
        return self._engine.run(pixels)


def make_front(network: nn.Layer, frozen_parts: int, device: str, preprocess: Preprocess) -> Front | None:
    """None where nothing is frozen for good, the device is no CPU, or the backbone is no sequence of blocks."""
    if device != "cpu" or not isinstance(network, Trained):
        return None
    part_of = parts_of(network)
    still = {id(one) for name, one in network.named_parameters() if part_of.get(name, frozen_parts) < frozen_parts}
    blocks = network.backbone.sequence()
    count = next(
        (place for place, block in enumerate(blocks) if any(id(one) not in still for one in block.parameters())),
        len(blocks),
    )
    return Front(network, count, preprocess) if count else None


def forward(network: nn.Layer, front: Front | None, pixels: np.ndarray, preprocess: Preprocess) -> paddle.Tensor:
    """Logits float32 [N, C] of uint8 pixels [N, H, W, 3]; with a front only what comes after it is computed by `network`."""
    if front is None:
        return network(paddle.to_tensor(to_tensor(pixels, preprocess)))
    assert isinstance(network, Trained)
    return network.head(_feature_maps(network, front, pixels, preprocess))


def forward_with_maps(
    network: nn.Layer, front: Front | None, pixels: np.ndarray, preprocess: Preprocess
) -> tuple[paddle.Tensor, paddle.Tensor]:
    """As `forward`, and the head's local logits float32 [N, C, h, w]."""
    assert isinstance(network, Trained) and isinstance(network.head, PooledLocalHead)
    return network.head.with_maps(_feature_maps(network, front, pixels, preprocess))


def _feature_maps(network: Trained, front: Front | None, pixels: np.ndarray, preprocess: Preprocess) -> paddle.Tensor:
    if front is None:
        return network.backbone(paddle.to_tensor(to_tensor(pixels, preprocess)))
    x = paddle.to_tensor(front.features(pixels))
    for block in network.backbone.sequence()[front.count :]:
        x = block(x)
    return x
