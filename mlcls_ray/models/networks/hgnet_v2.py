"""PP-HGNetV2 B0, B4 and B6 with ML-Decoder.

PaddleClas's PP-HGNetV2 (2023), a CNN whose blocks concatenate all their layers; used in RT-DETR (arXiv 2304.08069). The parameters'
names are PaddleClas's, so that its weights load as they are.
"""

from __future__ import annotations

from typing import NamedTuple

import paddle
from paddle import nn

from mlcls_ray.models.heads import MLDecoder

FEATURE_CHANNELS = 2048
LAB_LEARNING_RATE = 0.01
"""Of the affine layers, relative to the rest, as PaddleClas trains them."""


class Stage(NamedTuple):
    """`blocks` blocks of `layers` layers each; the first stage alone keeps the size."""

    inner: int
    channels: int
    blocks: int
    downsamples: bool
    is_light: bool
    kernel: int


class Size(NamedTuple):
    """One member of the family; `affine`: each activation is followed by a learned scale and bias."""

    stem: tuple[int, int]
    stages: tuple[Stage, Stage, Stage, Stage]
    layers: int
    affine: bool


B0 = Size(
    (16, 16),
    (
        Stage(16, 64, 1, False, False, 3),
        Stage(32, 256, 1, True, False, 3),
        Stage(64, 512, 2, True, True, 5),
        Stage(128, 1024, 1, True, True, 5),
    ),
    layers=3,
    affine=True,
)
B4 = Size(
    (32, 48),
    (
        Stage(48, 128, 1, False, False, 3),
        Stage(96, 512, 1, True, False, 3),
        Stage(192, 1024, 3, True, True, 5),
        Stage(384, 2048, 1, True, True, 5),
    ),
    layers=6,
    affine=False,
)
B6 = Size(
    (48, 96),
    (
        Stage(96, 192, 2, False, False, 3),
        Stage(192, 512, 3, True, False, 3),
        Stage(384, 1024, 6, True, True, 5),
        Stage(768, 2048, 3, True, True, 5),
    ),
    layers=6,
    affine=False,
)


class LearnableAffine(nn.Layer):
    """One scale and one bias for the whole map."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = self._parameter(1.0)
        self.bias = self._parameter(0.0)

    def _parameter(self, value: float) -> paddle.Tensor:
        attributes = paddle.ParamAttr(learning_rate=LAB_LEARNING_RATE)
        return self.create_parameter([1], attr=attributes, default_initializer=nn.initializer.Constant(value))

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.scale * x + self.bias


class ConvolutionNorm(nn.Layer):
    """Convolution, batch norm and, if it is active, ReLU with an affine layer behind it where the size has them."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        affine: bool,
        stride: int = 1,
        groups: int = 1,
        is_active: bool = True,
    ) -> None:
        super().__init__()
        # Even kernels keep the size by padding at the bottom right only.
        padding = kernel // 2 if kernel % 2 else "SAME"
        self.conv = nn.Conv2D(inputs, outputs, kernel, stride, padding=padding, groups=groups, bias_attr=False)
        self.bn = nn.BatchNorm2D(outputs)
        self.is_active = is_active
        self.lab = LearnableAffine() if is_active and affine else None
        nn.initializer.KaimingNormal()(self.conv.weight)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        x = self.bn(self.conv(x))
        if not self.is_active:
            return x
        x = nn.functional.relu(x)
        return x if self.lab is None else self.lab(x)


class LightConvolution(nn.Layer):
    """Mix the channels, then filter each by itself."""

    def __init__(self, inputs: int, outputs: int, kernel: int, affine: bool) -> None:
        super().__init__()
        self.conv1 = ConvolutionNorm(inputs, outputs, 1, affine, is_active=False)
        self.conv2 = ConvolutionNorm(outputs, outputs, kernel, affine, groups=outputs)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.conv2(self.conv1(x))


class Stem(nn.Layer):
    """A quarter of the size, by convolutions beside a pooled path."""

    def __init__(self, inner: int, outputs: int, affine: bool) -> None:
        super().__init__()
        self.stem1 = ConvolutionNorm(3, inner, 3, affine, stride=2)
        self.stem2a = ConvolutionNorm(inner, inner // 2, 2, affine)
        self.stem2b = ConvolutionNorm(inner // 2, inner, 2, affine)
        self.stem3 = ConvolutionNorm(inner * 2, inner, 3, affine, stride=2)
        self.stem4 = ConvolutionNorm(inner, outputs, 1, affine)
        self.pool = nn.MaxPool2D(kernel_size=2, stride=1, ceil_mode=True, padding="SAME")

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        x = self.stem1(x)
        beside = self.stem2b(self.stem2a(x))
        return self.stem4(self.stem3(paddle.concat([self.pool(x), beside], axis=1)))


class Block(nn.Layer):
    """Layers one behind the other; all of them, concatenated, are squeezed and expanded."""

    def __init__(self, inputs: int, stage: Stage, layers: int, affine: bool, has_shortcut: bool) -> None:
        super().__init__()
        kind = LightConvolution if stage.is_light else ConvolutionNorm
        widths = [inputs, *[stage.inner] * (layers - 1)]
        self.layers = nn.LayerList([kind(width, stage.inner, stage.kernel, affine) for width in widths])
        total = inputs + layers * stage.inner
        self.aggregation_squeeze_conv = ConvolutionNorm(total, stage.channels // 2, 1, affine)
        self.aggregation_excitation_conv = ConvolutionNorm(stage.channels // 2, stage.channels, 1, affine)
        self.has_shortcut = has_shortcut

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        outputs = [x]
        for layer in self.layers:
            outputs.append(layer(outputs[-1]))
        found = self.aggregation_excitation_conv(self.aggregation_squeeze_conv(paddle.concat(outputs, axis=1)))
        return found + x if self.has_shortcut else found


class StageLayer(nn.Layer):
    """An optional halving, then the stage's blocks."""

    def __init__(self, inputs: int, stage: Stage, layers: int, affine: bool) -> None:
        super().__init__()
        self.downsample = (
            ConvolutionNorm(inputs, inputs, 3, affine, stride=2, groups=inputs, is_active=False)
            if stage.downsamples
            else None
        )
        widths = [inputs, *[stage.channels] * (stage.blocks - 1)]
        self.blocks = nn.Sequential(
            *[Block(width, stage, layers, affine, has_shortcut=number > 0) for number, width in enumerate(widths)]
        )

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.blocks(x if self.downsample is None else self.downsample(x))


class HGNetV2ML(nn.Layer):
    """float32 ``[N, 3, S, S]`` → logits float32 ``[N, class_num]``."""

    def __init__(self, size: Size, class_num: int) -> None:
        super().__init__()
        self.stem = Stem(*size.stem, size.affine)
        widths = [size.stem[1], *(stage.channels for stage in size.stages)]
        self.stages = nn.LayerList(
            [
                StageLayer(width, stage, size.layers, size.affine)
                for width, stage in zip(widths, size.stages, strict=False)
            ]
        )
        self.last_conv = nn.Conv2D(widths[-1], FEATURE_CHANNELS, 1, bias_attr=False)
        self.lab = LearnableAffine() if size.affine else None
        self.fc = MLDecoder(FEATURE_CHANNELS, class_num)
        nn.initializer.KaimingNormal()(self.last_conv.weight)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        x = nn.functional.relu(self.last_conv(x))
        return self.fc(x if self.lab is None else self.lab(x))
