"""The models that have a name: the shipped starter, and PaddleX's six for COCO-80."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict

STARTER = "starter"
STARTER_FOLDER = Path(__file__).parent / STARTER
STARTER_MAP, STARTER_SIZE = 67.9, 320
"""mAP in percent on the 167 images of coco_mini/dev.txt, and input size: see its MODEL_CARD.md."""

MIRROR_VARIABLE = "MLCLS_MODEL_MIRROR"
BASE_URL = "https://paddle-model-ecology.bj.bcebos.com/paddlex/official_inference_model/paddle3.0.0"
"""Where PaddleX 3.7 fetches them; `{base}/{name}_infer.tar`."""


class Spec(BaseModel):
    """What is published about a named model: mAP on COCO 2017 in percent, download size in MB."""

    model_config = ConfigDict(frozen=True)

    name: str
    mean_average_precision: float
    input_size: int
    download_mb: float

    @property
    def url(self) -> str:
        base = os.environ.get(MIRROR_VARIABLE) or BASE_URL
        return f"{base.rstrip('/')}/{self.name}_infer.tar"


OFFICIAL = {
    spec.name: spec
    for spec in (
        Spec(name="PP-LCNet_x1_0_ML", mean_average_precision=77.96, input_size=448, download_mb=29.4),
        Spec(name="PP-HGNetV2-B0_ML", mean_average_precision=80.98, input_size=448, download_mb=39.6),
        Spec(name="PP-HGNetV2-B4_ML", mean_average_precision=87.96, input_size=448, download_mb=88.5),
        Spec(name="PP-HGNetV2-B6_ML", mean_average_precision=91.25, input_size=448, download_mb=286.5),
        Spec(name="ResNet50_ML", mean_average_precision=83.50, input_size=448, download_mb=108.9),
        Spec(name="CLIP_vit_base_patch16_448_ML", mean_average_precision=89.15, input_size=448, download_mb=325.6),
    )
}
