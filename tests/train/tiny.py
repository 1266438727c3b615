"""A network that trains in seconds."""

from __future__ import annotations

from paddle import nn

from mlcls_ray.images.preprocess import Preprocess
from mlcls_ray.models.networks.tiny import CHANNELS, TinyBackbone
from mlcls_ray.train.networks import HEADS, LogitClassifier, NetworkSpec


def build(class_num: int, head: str) -> nn.Layer:
    return LogitClassifier(TinyBackbone(), HEADS[head](CHANNELS, class_num))


TINY = NetworkSpec("tiny", build, "pooled", Preprocess(size=(32, 32), backend="pil", interpolation="BILINEAR"))
