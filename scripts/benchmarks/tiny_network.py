"""A network with a few hundred parameters, for tests and for measuring everything but the network."""

from __future__ import annotations

from pathlib import Path

import paddle
from paddle import nn

from mlcls_ray.models.build import build_network
from mlcls_ray.models.convert.paddle import export_network, write_config
from mlcls_ray.models.heads import LogitClassifier, PooledLinearHead, WithSigmoid
from mlcls_ray.models.networks.spec import NetworkSpec

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


def tiny_network(class_num: int) -> nn.Layer:
    return LogitClassifier(TinyBackbone(), PooledLinearHead(CHANNELS, class_num))


TINY = NetworkSpec(
    name="tiny",
    build=tiny_network,
    channels=CHANNELS,
    input_size=32,
    usual_head="pooled",
    head_attribute="head",
)


def export_tiny(
    folder: Path, vocabulary: tuple[str, ...], input_size: int = 32, seed: int = 0, name: str = "tiny"
) -> None:
    """Write an inference folder with seeded random weights."""
    network = WithSigmoid(build_network(TINY, len(vocabulary), seed))
    export_network(network, input_size, folder)
    preprocess = TINY.preprocess.model_copy(update={"size": (input_size, input_size)})
    write_config(folder, name, preprocess, vocabulary, 0.5)
