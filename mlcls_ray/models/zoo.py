"""The models that have a name: the starter, which ships with the package, and those whose weights PaddleX publishes."""

from __future__ import annotations

import os
from pathlib import Path

STARTER = "starter"
STARTER_FOLDER = Path(__file__).parent / STARTER
STARTER_MAP, STARTER_SIZE = 71.0, 384
"""mAP in percent on the 167 images of coco_mini/dev.txt, and side of the input: see its MODEL_CARD.md."""

MIRROR_VARIABLE = "MLCLS_MODEL_MIRROR"
BASE_URL = "https://paddle-model-ecology.bj.bcebos.com/paddlex/official_inference_model/paddle3.0.0"
"""The server that PaddleX 3.7 fetches inference folders from."""


def archive_url(name: str) -> str:
    """Return the URL of a published model's tar, on the mirror where one is set."""
    base = os.environ.get(MIRROR_VARIABLE) or BASE_URL
    return f"{base.rstrip('/')}/{name}_infer.tar"
