"""ResNet50 with ML-Decoder.

He et al., "Deep Residual Learning for Image Recognition" (arXiv 1512.03385), with the stride in the 3×3 convolution. The parameters'
names are PaddleClas's, so that its weights load as they are.
"""

from __future__ import annotations

import paddle
from paddle import nn

from mlcls_ray.models.heads import MLDecoder
from mlcls_ray.models.networks.spec import NetworkSpec

FEATURE_CHANNELS = 2048
EXPANSION = 4
DEPTHS = (3, 4, 6, 3)
WIDTHS = (64, 128, 256, 512)


class ConvolutionNorm(nn.Layer):
    """Convolution and batch norm, then ReLU if `is_active`."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, is_active: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2D(inputs, outputs, kernel, stride, padding=kernel // 2, bias_attr=False)
        self.bn = nn.BatchNorm2D(outputs)
        self.is_active = is_active

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        x = self.bn(self.conv(x))
        return nn.functional.relu(x) if self.is_active else x


class Bottleneck(nn.Layer):
    """Bottleneck block: convolutions 1×1, 3×3, 1×1, added to the input or to its projection."""

    def __init__(self, inputs: int, width: int, stride: int, has_projection: bool) -> None:
        super().__init__()
        outputs = width * EXPANSION
        self.conv0 = ConvolutionNorm(inputs, width, 1)
        self.conv1 = ConvolutionNorm(width, width, 3, stride)
        self.conv2 = ConvolutionNorm(width, outputs, 1, is_active=False)
        self.short = ConvolutionNorm(inputs, outputs, 1, stride, is_active=False) if has_projection else None

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        shortcut = x if self.short is None else self.short(x)
        return nn.functional.relu(self.conv2(self.conv1(self.conv0(x))) + shortcut)


class ResNet50ML(nn.Layer):
    """float32 ``[N, 3, S, S]`` → logits float32 ``[N, class_num]``."""

    def __init__(self, class_num: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(ConvolutionNorm(3, 64, 7, stride=2))
        self.max_pool = nn.MaxPool2D(kernel_size=3, stride=2, padding=1)
        blocks = []
        channels = 64
        for number, (depth, width) in enumerate(zip(DEPTHS, WIDTHS, strict=True)):
            for position in range(depth):
                stride = 2 if position == 0 and number > 0 else 1
                blocks.append(Bottleneck(channels, width, stride, has_projection=position == 0))
                channels = width * EXPANSION
        self.blocks = nn.Sequential(*blocks)
        self.fc = MLDecoder(FEATURE_CHANNELS, class_num)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.fc(self.blocks(self.max_pool(self.stem(x))))


RESNET50 = NetworkSpec(
    name="ResNet50_ML",
    build=ResNet50ML,
    channels=FEATURE_CHANNELS,
    input_size=448,
)
