"""Networks, one file a family. They need Paddle and nothing else, so that another version of it can build them too (`lite`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from paddle import nn

from mlcls_ray.models.networks import hgnet_v2
from mlcls_ray.models.networks.clip_vit import ClipViTML
from mlcls_ray.models.networks.lcnet import LCNetML
from mlcls_ray.models.networks.resnet import ResNet50ML

NETWORKS: Mapping[str, Callable[[int], nn.Layer]] = {
    "PP-LCNet_x1_0_ML": LCNetML,
    "PP-HGNetV2-B0_ML": partial(hgnet_v2.HGNetV2ML, hgnet_v2.B0),
    "PP-HGNetV2-B4_ML": partial(hgnet_v2.HGNetV2ML, hgnet_v2.B4),
    "PP-HGNetV2-B6_ML": partial(hgnet_v2.HGNetV2ML, hgnet_v2.B6),
    "ResNet50_ML": ResNet50ML,
    "CLIP_vit_base_patch16_448_ML": ClipViTML,
}
"""Name → network for so many classes; its output is logits."""
