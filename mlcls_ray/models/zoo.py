"""The models that have a name: the starter, which ships with the package, and those whose weights PaddleX publishes.

Networks are in `registry.NETWORKS`; this file is about weights, and does not need Paddle.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

STARTER = "starter"
STARTER_FOLDER = Path(__file__).parent / STARTER
STARTER_MAP, STARTER_SIZE = 71.0, 384
"""mAP in percent on the 167 images of coco_mini/dev.txt, and side of the input: see its MODEL_CARD.md."""

MIRROR_VARIABLE = "MLCLS_MODEL_MIRROR"
BASE_URL = "https://paddle-model-ecology.bj.bcebos.com/paddlex/official_inference_model/paddle3.0.0"
"""The server that PaddleX 3.7 fetches inference folders from."""


@dataclass(frozen=True)
class PublishedModel:
    """Facts about a model whose weights can be fetched."""

    mean_average_precision: float
    """In percent, on COCO 2017."""
    download_mb: float
    input_size: int = 448
    """Side of the input in pixels."""


PUBLISHED: Mapping[str, PublishedModel] = {
    "PP-LCNet_x1_0_ML": PublishedModel(77.96, 29.4),
    "PP-HGNetV2-B0_ML": PublishedModel(80.98, 39.6),
    "PP-HGNetV2-B4_ML": PublishedModel(87.96, 88.5),
    "PP-HGNetV2-B6_ML": PublishedModel(91.25, 286.5),
    "ResNet50_ML": PublishedModel(83.50, 108.9),
    "CLIP_vit_base_patch16_448_ML": PublishedModel(89.15, 325.6),
}
"""By the name of the network. A network without published weights is not listed."""
MODEL_NAMES = (STARTER, *PUBLISHED)
"""The names that can be given instead of a model folder."""


def archive_url(name: str) -> str:
    """Return the URL of a published model's tar, on the mirror where one is set."""
    base = os.environ.get(MIRROR_VARIABLE) or BASE_URL
    return f"{base.rstrip('/')}/{name}_infer.tar"
