"""EfficientNet-Lite0, the starter model's network.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks" (2019); the Lite variant
drops squeeze-and-excitation and replaces swish by ReLU6 (TensorFlow TPU repository, 2020). The weights were trained in
TensorFlow, so strided convolutions pad as TensorFlow's SAME does: on an even input one pixel less at the top left.
"""

from __future__ import annotations

from typing import NamedTuple

import paddle
from paddle import nn

from mlcls_ray.models.heads import LogitClassifier, PooledLocalHead
from mlcls_ray.models.networks.spec import NetworkSpec

BATCH_NORM_EPSILON = 1e-3
FEATURE_CHANNELS = 1280
STRIDE = 32
"""Input sizes are multiples of this; then each strided layer sees an even input and its padding is a constant."""


class Stage(NamedTuple):
    """One stage of ``repeats`` blocks. Only its first block has the stride and changes the width."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


def same_padding(kernel: int, stride: int) -> list[int]:
    """TensorFlow-SAME padding ``[top, bottom, left, right]`` for an input whose sides are multiples of the stride."""
    total = kernel - stride
    before, after = total // 2, total - total // 2
    return [before, after, before, after]


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Layer]:
    return [
        nn.Conv2D(
            inputs, outputs, kernel, stride, padding=same_padding(kernel, stride), groups=groups, bias_attr=False
        ),
        nn.BatchNorm2D(outputs, epsilon=BATCH_NORM_EPSILON),
    ]


class InvertedResidual(nn.Layer):
    """Expand (1×1), filter per channel (k×k), project (1×1); the input is added where the shape allows it."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = inputs * expansion
        expand = [*convolution(inputs, width, 1), nn.ReLU6()] if expansion != 1 else []
        depthwise = [*convolution(width, width, kernel, stride, groups=width), nn.ReLU6()]
        self.layers = nn.Sequential(*expand, *depthwise, *convolution(width, outputs, 1))
        self.has_shortcut = stride == 1 and inputs == outputs

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return x + self.layers(x) if self.has_shortcut else self.layers(x)


class EfficientNetLite0(nn.Layer):
    """Backbone: float32 ``[N, 3, S, S]`` → float32 ``[N, 1280, S/32, S/32]``; 3.4 M parameters.

    The order of the parameters is that of lukemelas/EfficientNet-PyTorch, so its weights load in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(*convolution(3, 32, 3, stride=2), nn.ReLU6())
        blocks = []
        channels = 32
        for stage in STAGES:
            for repeat in range(stage.repeats):
                stride = stage.stride if repeat == 0 else 1
                blocks.append(InvertedResidual(channels, stage.channels, stage.kernel, stride, stage.expansion))
                channels = stage.channels
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(*convolution(channels, FEATURE_CHANNELS, 1), nn.ReLU6())

    def sequence(self) -> list[nn.Layer]:
        """List the blocks that `forward` applies one after another."""
        return [self.stem, *self.blocks, self.head]

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.head(self.blocks(self.stem(x)))


def starter_network(class_num: int) -> nn.Layer:
    return LogitClassifier(EfficientNetLite0(), PooledLocalHead(FEATURE_CHANNELS, class_num))


STARTER = NetworkSpec(
    name="EfficientNet-Lite0_ML",
    build=starter_network,
    channels=FEATURE_CHANNELS,
    input_size=384,
    usual_head="pooled_local",
    head_attribute="head",
    initial_weights="starter",
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)
