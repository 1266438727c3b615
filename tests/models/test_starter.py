"""The shipped starter: its size, its card, and its mAP on images it was never trained or tuned on."""

from __future__ import annotations

from pathlib import Path

from mlcls_ray.labels.vocabulary import read_vocabulary
from mlcls_ray.models.cache import open_model
from mlcls_ray.models.zoo import STARTER_FOLDER, STARTER_MAP, STARTER_SIZE
from mlcls_ray.training.dataset import read_dataset
from mlcls_ray.training.starter import evaluate


def test_it_fits_into_the_package() -> None:
    assert sum(path.stat().st_size for path in STARTER_FOLDER.iterdir()) < 20_000_000
    card = (STARTER_FOLDER / "MODEL_CARD.md").read_text()
    assert f"{STARTER_MAP}" in card
    model = open_model("starter")
    assert model.preprocess.input_size == (STARTER_SIZE, STARTER_SIZE)
    assert (len(model.vocabulary), model.vocabulary[0], model.vocabulary[21]) == (80, "person", "bear")


def test_dev_map(shared_data: Path) -> None:
    model = open_model("starter")
    assert read_vocabulary(shared_data / "coco_mini" / "label.txt") == model.vocabulary
    result = evaluate(model, read_dataset(shared_data / "coco_mini" / "dev.txt", 80))
    assert result["images"] == 167
    assert result["mAP"] >= 64.0
    assert abs(result["mAP"] - STARTER_MAP) < 0.3, "the card and `mlcls models` tell the measured number"
