"""The models that have a name: the shipped starter, and PaddleX's six for COCO-80."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from mlcls_ray.images.preprocess import Preprocess

STARTER = "starter"
STARTER_FOLDER = Path(__file__).parent / STARTER
STARTER_MAP, STARTER_SIZE = 71.0, 384
"""mAP in percent on the 167 images of coco_mini/dev.txt, and input size: see its MODEL_CARD.md."""

MIRROR_VARIABLE = "MLCLS_MODEL_MIRROR"
BASE_URL = "https://paddle-model-ecology.bj.bcebos.com/paddlex/official_inference_model/paddle3.0.0"
"""Where PaddleX 3.7 fetches them; `{base}/{name}_infer.tar`."""


PRETRAINED_URL = "https://paddle-model-ecology.bj.bcebos.com/paddlex/official_pretrained_model"
"""Where PaddleX 3.7 takes weights to fine-tune from; `{base}/{name}_pretrained.pdparams`."""
PRETRAINED_SUFFIX = "_pretrained"


class Spec(BaseModel):
    """What is published about a named model: mAP on COCO 2017 in percent, download size in MB, the backbone's paper (the head's is
    ML-Decoder, arXiv 2111.12933), and the preprocessing that all of them share: squashed by Pillow, ImageNet's mean and deviation.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    mean_average_precision: float
    download_mb: float
    paper: str
    licence: str = "Apache-2.0"
    preprocess: Preprocess = Preprocess(size=(448, 448), backend="pil", interpolation="BILINEAR")

    @property
    def input_size(self) -> int:
        return self.preprocess.input_size[0]

    @property
    def pretrained_url(self) -> str:
        return f"{PRETRAINED_URL}/{self.name}{PRETRAINED_SUFFIX}.pdparams"

    @property
    def url(self) -> str:
        base = os.environ.get(MIRROR_VARIABLE) or BASE_URL
        return f"{base.rstrip('/')}/{self.name}_infer.tar"


OFFICIAL = {
    spec.name: spec
    for spec in (
        Spec(
            name="PP-LCNet_x1_0_ML",
            mean_average_precision=77.96,
            download_mb=29.4,
            paper="https://arxiv.org/abs/2109.15099",
        ),
        Spec(
            name="PP-HGNetV2-B0_ML",
            mean_average_precision=80.98,
            download_mb=39.6,
            paper="https://arxiv.org/abs/2304.08069",
        ),
        Spec(
            name="PP-HGNetV2-B4_ML",
            mean_average_precision=87.96,
            download_mb=88.5,
            paper="https://arxiv.org/abs/2304.08069",
        ),
        Spec(
            name="PP-HGNetV2-B6_ML",
            mean_average_precision=91.25,
            download_mb=286.5,
            paper="https://arxiv.org/abs/2304.08069",
        ),
        Spec(
            name="ResNet50_ML",
            mean_average_precision=83.50,
            download_mb=108.9,
            paper="https://arxiv.org/abs/1512.03385",
        ),
        Spec(
            name="CLIP_vit_base_patch16_448_ML",
            mean_average_precision=89.15,
            download_mb=325.6,
            paper="https://arxiv.org/abs/2103.00020",
        ),
    )
}
