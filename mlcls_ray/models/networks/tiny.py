"""A network of a few hundred parameters, for tests and for measuring everything but the network."""

from __future__ import annotations

from pathlib import Path

import paddle
from paddle import nn

from mlcls_ray.images.preprocess import Preprocess
from mlcls_ray.models.convert.paddle import export_network, write_config
from mlcls_ray.models.heads import MultiLabelClassifier, PooledLinearHead

CHANNELS = 8


class TinyBackbone(nn.Layer):
    """float32 [N, 3, S, S] → [N, 8, S/8, S/8]."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2D(3, CHANNELS, 8, stride=8)

    def sequence(self) -> list[nn.Layer]:
        return [self]

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return nn.functional.relu(self.convolution(x))


def export_tiny(
    folder: Path, vocabulary: tuple[str, ...], input_size: int = 32, seed: int = 0, name: str = "tiny"
) -> None:
    """An inference folder with seeded random weights."""
    paddle.seed(seed)
    network = MultiLabelClassifier(TinyBackbone(), PooledLinearHead(CHANNELS, len(vocabulary)))
    export_network(network, input_size, folder)
    preprocess = Preprocess(size=(input_size, input_size), backend="pil", interpolation="BILINEAR")
    write_config(folder, name, preprocess, vocabulary, 0.5)
