"""PP-LCNet x1.0 with ML-Decoder.

Cui et al., "PP-LCNet: A Lightweight CPU Convolutional Neural Network" (arXiv 2109.15099). The parameters' names are PaddleClas's,
so that its weights load as they are.
"""

from __future__ import annotations

from typing import NamedTuple

import paddle
from paddle import nn

from mlcls_ray.models.heads import MLDecoder
from mlcls_ray.models.networks.spec import NetworkSpec

FEATURE_CHANNELS = 1280
STEM_CHANNELS = 16
DROPOUT = 0.2


class Block(NamedTuple):
    """A depthwise-separable block, with squeeze-and-excitation or without."""

    kernel: int
    channels: int
    stride: int = 1
    has_attention: bool = False


STAGES = {
    "blocks2": [Block(3, 32)],
    "blocks3": [Block(3, 64, 2), Block(3, 64)],
    "blocks4": [Block(3, 128, 2), Block(3, 128)],
    "blocks5": [Block(3, 256, 2), *[Block(5, 256)] * 5],
    "blocks6": [Block(5, 512, 2, True), Block(5, 512, 1, True)],
}


class ConvolutionNorm(nn.Layer):
    """Convolution, batch norm, hard swish."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2D(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias_attr=False)
        self.bn = nn.BatchNorm2D(outputs)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return nn.functional.hardswish(self.bn(self.conv(x)))


class SqueezeExcitation(nn.Layer):
    """Squeeze-and-excitation: scale each channel by a weight computed from the averages of all channels."""

    REDUCTION = 4

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2D(channels, channels // self.REDUCTION, 1)
        self.conv2 = nn.Conv2D(channels // self.REDUCTION, channels, 1)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        average = nn.functional.adaptive_avg_pool2d(x, 1)
        return x * nn.functional.hardsigmoid(self.conv2(nn.functional.relu(self.conv1(average))))


class DepthwiseSeparable(nn.Layer):
    """Depthwise convolution (k×k), then pointwise convolution (1×1)."""

    def __init__(self, inputs: int, block: Block) -> None:
        super().__init__()
        self.dw_conv = ConvolutionNorm(inputs, inputs, block.kernel, block.stride, groups=inputs)
        self.se = SqueezeExcitation(inputs) if block.has_attention else None
        self.pw_conv = ConvolutionNorm(inputs, block.channels, 1)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        x = self.dw_conv(x)
        return self.pw_conv(x if self.se is None else self.se(x))


class ScaledDropout(nn.Layer):
    """Dropout as PaddleClas's PP-LCNet has it (`downscale_in_infer`): training drops a fifth, inference multiplies by 0.8.

    The product is written out, so that an exported program has it whatever a converter does with dropout.
    """

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        if self.training:
            return nn.functional.dropout(x, DROPOUT, training=True, mode="downscale_in_infer")
        return x * (1 - DROPOUT)


class LCNetML(nn.Layer):
    """float32 ``[N, 3, S, S]`` → logits float32 ``[N, class_num]``."""

    def __init__(self, class_num: int) -> None:
        super().__init__()
        self.conv1 = ConvolutionNorm(3, STEM_CHANNELS, 3, stride=2)
        channels = STEM_CHANNELS
        for name, blocks in STAGES.items():
            inputs = [channels, *(block.channels for block in blocks[:-1])]
            channels = blocks[-1].channels
            self.add_sublayer(name, nn.Sequential(*map(DepthwiseSeparable, inputs, blocks)))
        self.last_conv = nn.Conv2D(channels, FEATURE_CHANNELS, 1, bias_attr=False)
        self.dropout = ScaledDropout()
        self.fc = MLDecoder(FEATURE_CHANNELS, class_num)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        x = self.conv1(x)
        for stage in (self.blocks2, self.blocks3, self.blocks4, self.blocks5, self.blocks6):
            x = stage(x)
        return self.fc(self.dropout(nn.functional.hardswish(self.last_conv(x))))


X1_0 = NetworkSpec(
    name="PP-LCNet_x1_0_ML",
    build=LCNetML,
    channels=FEATURE_CHANNELS,
    input_size=448,
)
