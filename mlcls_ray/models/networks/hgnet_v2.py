"""PP-HGNetV2 B0, B4 and B6 with ML-Decoder.

PaddleClas's PP-HGNetV2 (2023), a CNN whose blocks concatenate all their layers; used in RT-DETR (arXiv 2304.08069). The parameters'
names are PaddleClas's, so that its weights load as they are.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import paddle
from paddle import nn

from mlcls_ray.models.heads import MLDecoder
from mlcls_ray.models.networks.spec import NetworkSpec

FEATURE_CHANNELS = 2048
LAB_LEARNING_RATE = 0.01
"""Learning rate of the affine layers, relative to the other layers, as PaddleClas trains them."""


class Stage(NamedTuple):
    """One stage of blocks. Only the first stage keeps the size of its input."""

    inner: int
    channels: int
    blocks: int
    has_downsample: bool
    is_light: bool
    kernel: int


class Size(NamedTuple):
    """One member of the family. With `has_affine` a learned scale and bias follows each activation."""

    stem: tuple[int, int]
    stages: tuple[Stage, Stage, Stage, Stage]
    layers: int
    """Layers in each block."""
    has_affine: bool


SIZE_B0 = Size(
    (16, 16),
    (
        Stage(16, 64, 1, False, False, 3),
        Stage(32, 256, 1, True, False, 3),
        Stage(64, 512, 2, True, True, 5),
        Stage(128, 1024, 1, True, True, 5),
    ),
    layers=3,
    has_affine=True,
)
SIZE_B4 = Size(
    (32, 48),
    (
        Stage(48, 128, 1, False, False, 3),
        Stage(96, 512, 1, True, False, 3),
        Stage(192, 1024, 3, True, True, 5),
        Stage(384, 2048, 1, True, True, 5),
    ),
    layers=6,
    has_affine=False,
)
SIZE_B6 = Size(
    (48, 96),
    (
        Stage(96, 192, 2, False, False, 3),
        Stage(192, 512, 3, True, False, 3),
        Stage(384, 1024, 6, True, True, 5),
        Stage(768, 2048, 3, True, True, 5),
    ),
    layers=6,
    has_affine=False,
)


class LearnableAffine(nn.Layer):
    """One learned scale and one learned bias for all feature maps."""

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
    """Convolution and batch norm; if `is_active` also ReLU, and after it an affine layer in sizes that have them."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        has_affine: bool,
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
        self.lab = LearnableAffine() if is_active and has_affine else None
        nn.initializer.KaimingNormal()(self.conv.weight)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        x = self.bn(self.conv(x))
        if not self.is_active:
            return x
        x = nn.functional.relu(x)
        return x if self.lab is None else self.lab(x)


class LightConvolution(nn.Layer):
    """Pointwise convolution (1×1), then depthwise convolution (k×k)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, has_affine: bool) -> None:
        super().__init__()
        self.conv1 = ConvolutionNorm(inputs, outputs, 1, has_affine, is_active=False)
        self.conv2 = ConvolutionNorm(outputs, outputs, kernel, has_affine, groups=outputs)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.conv2(self.conv1(x))


class Stem(nn.Layer):
    """Stem: convolutions beside a pooled path; a quarter of the input's size."""

    def __init__(self, inner: int, outputs: int, has_affine: bool) -> None:
        super().__init__()
        self.stem1 = ConvolutionNorm(3, inner, 3, has_affine, stride=2)
        self.stem2a = ConvolutionNorm(inner, inner // 2, 2, has_affine)
        self.stem2b = ConvolutionNorm(inner // 2, inner, 2, has_affine)
        self.stem3 = ConvolutionNorm(inner * 2, inner, 3, has_affine, stride=2)
        self.stem4 = ConvolutionNorm(inner, outputs, 1, has_affine)
        self.pool = nn.MaxPool2D(kernel_size=2, stride=1, ceil_mode=True, padding="SAME")

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        x = self.stem1(x)
        convolved = self.stem2b(self.stem2a(x))
        return self.stem4(self.stem3(paddle.concat([self.pool(x), convolved], axis=1)))


class Block(nn.Layer):
    """A chain of layers; the outputs of all of them are concatenated, then squeezed and expanded."""

    def __init__(self, inputs: int, stage: Stage, layers: int, has_affine: bool, has_shortcut: bool) -> None:
        super().__init__()
        layer_type = LightConvolution if stage.is_light else ConvolutionNorm
        widths = [inputs, *[stage.inner] * (layers - 1)]
        self.layers = nn.LayerList([layer_type(width, stage.inner, stage.kernel, has_affine) for width in widths])
        total = inputs + layers * stage.inner
        self.aggregation_squeeze_conv = ConvolutionNorm(total, stage.channels // 2, 1, has_affine)
        self.aggregation_excitation_conv = ConvolutionNorm(stage.channels // 2, stage.channels, 1, has_affine)
        self.has_shortcut = has_shortcut

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        outputs = [x]
        for layer in self.layers:
            outputs.append(layer(outputs[-1]))
        merged = self.aggregation_excitation_conv(self.aggregation_squeeze_conv(paddle.concat(outputs, axis=1)))
        return merged + x if self.has_shortcut else merged


class StageLayer(nn.Layer):
    """A convolution that halves the size, where the stage has one, then the stage's blocks."""

    def __init__(self, inputs: int, stage: Stage, layers: int, has_affine: bool) -> None:
        super().__init__()
        self.downsample = (
            ConvolutionNorm(inputs, inputs, 3, has_affine, stride=2, groups=inputs, is_active=False)
            if stage.has_downsample
            else None
        )
        widths = [inputs, *[stage.channels] * (stage.blocks - 1)]
        self.blocks = nn.Sequential(
            *[Block(width, stage, layers, has_affine, has_shortcut=number > 0) for number, width in enumerate(widths)]
        )

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.blocks(x if self.downsample is None else self.downsample(x))


class HGNetV2ML(nn.Layer):
    """float32 ``[N, 3, S, S]`` → logits float32 ``[N, class_num]``."""

    def __init__(self, size: Size, class_num: int) -> None:
        super().__init__()
        self.stem = Stem(*size.stem, size.has_affine)
        widths = [size.stem[1], *(stage.channels for stage in size.stages)]
        self.stages = nn.LayerList(
            [
                StageLayer(width, stage, size.layers, size.has_affine)
                for width, stage in zip(widths, size.stages, strict=False)
            ]
        )
        self.last_conv = nn.Conv2D(widths[-1], FEATURE_CHANNELS, 1, bias_attr=False)
        self.lab = LearnableAffine() if size.has_affine else None
        self.fc = MLDecoder(FEATURE_CHANNELS, class_num)
        nn.initializer.KaimingNormal()(self.last_conv.weight)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        x = nn.functional.relu(self.last_conv(x))
        return self.fc(x if self.lab is None else self.lab(x))


def _spec(name: str, size: Size) -> NetworkSpec:
    return NetworkSpec(name, partial(HGNetV2ML, size), channels=FEATURE_CHANNELS, input_size=448)


B0 = _spec("PP-HGNetV2-B0_ML", SIZE_B0)
B4 = _spec("PP-HGNetV2-B4_ML", SIZE_B4)
B6 = _spec("PP-HGNetV2-B6_ML", SIZE_B6)
