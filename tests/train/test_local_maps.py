"""Score maps: a network that learns from them knows where objects are; maps that do not fit are refused before training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle
import pytest
from benchmarks.tiny_network import TINY
from PIL import Image, ImageDraw
from safetensors.numpy import load_file

from mlcls_ray.datasets.formats import write_list
from mlcls_ray.errors import UsageError
from mlcls_ray.images.preprocess import to_tensor
from mlcls_ray.models.heads import LogitClassifier
from mlcls_ray.train import checkpoints
from mlcls_ray.train.config import Augment, Distill, FinetuneJob
from mlcls_ray.train.finetune import finetune
from mlcls_ray.train.local_maps import NAME
from mlcls_ray.train.networks import build

pytestmark = pytest.mark.usefixtures("loopback_ray")
COLORS = ((220, 40, 40), (40, 60, 220))
SIDE, CELL = 4, 8


def draw(folder: Path, number: int) -> tuple[Path, np.ndarray]:
    """Draw squares of two colours on a 4×4 grid. Return the file, and the cells of each colour: uint8 [2, 4, 4]."""
    random = np.random.default_rng(number)
    picture = Image.fromarray(random.normal(120, 12, (SIDE * CELL, SIDE * CELL, 3)).clip(0, 255).astype(np.uint8))
    where = np.where(random.random((SIDE, SIDE)) < 0.15, random.integers(0, 2, (SIDE, SIDE)), -1)
    for y, x in np.argwhere(where >= 0):
        box = (x * CELL, y * CELL, x * CELL + CELL - 1, y * CELL + CELL - 1)
        ImageDraw.Draw(picture).rectangle(box, fill=COLORS[where[y, x]])
    path = folder / f"{number}.png"
    picture.save(path)
    return path, np.stack([255 * (where == color) for color in range(2)]).astype(np.uint8)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("squares")
    (folder / "label.txt").write_text("0 red\n1 blue\n")
    for split, numbers in {"train": range(160), "dev": range(1000, 1040)}.items():
        paths, maps_of_images = zip(*(draw(folder, number) for number in numbers), strict=True)
        maps = np.stack(maps_of_images)
        write_list(folder / f"{split}.txt", paths, maps.max(axis=(2, 3)) / 255)
        if split == "train":
            np.save(folder / NAME, maps)
    return folder


def job_of(data: Path, out: Path, **changes: object) -> FinetuneJob:
    values = {
        "head": "pooled_local", "epochs": 12, "batch_size": 16, "head_only_epochs": 0, "learning_rate": 0.03,
        "backbone_lr_scale": 1.0, "layer_decay": 1.0, "ema_decay": 0.5,
        "augment": Augment(randaugment_n=0, cutout=0.0, min_crop_area=1.0),
        "distill": Distill(logit_clip=0.03, local_weight=1.0),
    }  # fmt: skip
    return FinetuneJob.model_validate({"data": data, "out": out, **values, **changes})


def test_local_logits_find_where_the_squares_are(data: Path, tmp_path: Path) -> None:
    job = job_of(data, tmp_path / "out")
    assert finetune(job, TINY).mean_average_precision > 0.95
    network = build(TINY, 2, head=job.head)
    values = load_file(job.out / checkpoints.FOLDER / checkpoints.BEST / checkpoints.AVERAGED)
    network.set_state_dict({name: paddle.to_tensor(value) for name, value in values.items()})
    pictures = [draw(tmp_path, number) for number in range(5000, 5010)]
    pixels = np.stack([np.asarray(Image.open(path)) for path, _ in pictures])
    assert isinstance(network, LogitClassifier)
    features = network.backbone(paddle.to_tensor(to_tensor(pixels, TINY.preprocess)))
    local_logits = network.head.with_maps(features)[1].numpy()
    expected = np.stack([maps for _, maps in pictures]) > 0
    assert expected.sum() > 15
    np.testing.assert_array_equal(local_logits > 0, expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head": "pooled"}, "distill.local_weight needs a network that ends in the head pooled_local"),
        (
            {"augment": Augment(randaugment_n=0, min_crop_area=0.5)},
            "distill.local_weight needs augment.randaugment_n 0 and augment.min_crop_area 1",
        ),
        ({"input_size": 64}, r"holds uint8 \[160, 2, 4, 4\]: expected uint8 \[160, 2, 8, 8\]"),
    ],
)
def test_maps_that_do_not_fit_are_refused(changes: dict[str, object], message: str, data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        finetune(job_of(data, tmp_path, **changes), TINY)


def test_maps_that_cannot_be_read_are_refused(data: Path, tmp_path: Path) -> None:
    for name in ("label.txt", "train.txt", "dev.txt"):
        (tmp_path / name).write_text((data / name).read_text())
    with pytest.raises(UsageError, match=f"{NAME}' cannot be read"):
        finetune(job_of(tmp_path, tmp_path / "out"), TINY)
    np.save(tmp_path / NAME, np.array([{"a": "pickled object"}]), allow_pickle=True)
    with pytest.raises(UsageError, match="Python objects"):
        finetune(job_of(tmp_path, tmp_path / "out"), TINY)
