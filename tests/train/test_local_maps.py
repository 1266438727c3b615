"""Local logits: a network that is told what is where finds it, and what does not fit is refused before anything is trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle
import pytest
from PIL import Image, ImageDraw
from safetensors.numpy import load_file

from mlcls_ray.datasets.formats import Dataset, write_list
from mlcls_ray.errors import UsageError
from mlcls_ray.images.preprocess import to_tensor
from mlcls_ray.train import checkpoints, networks
from mlcls_ray.train.config import Augment, FinetuneJob, Loss
from mlcls_ray.train.finetune import CHECKPOINTS, finetune
from mlcls_ray.train.local_maps import NAME

pytestmark = pytest.mark.usefixtures("loopback_ray")
COLORS = ((220, 40, 40), (40, 60, 220))
SIDE, CELL = 4, 8


def draw(folder: Path, number: int) -> tuple[Path, np.ndarray]:
    """Squares of two colours on the positions of a 4×4 grid, and where each colour is: uint8 [2, 4, 4]."""
    random = np.random.default_rng(number)
    picture = Image.fromarray(random.normal(120, 12, (SIDE * CELL, SIDE * CELL, 3)).clip(0, 255).astype(np.uint8))
    where = np.where(random.random((SIDE, SIDE)) < 0.15, random.integers(0, 2, (SIDE, SIDE)), -1)
    for y, x in np.argwhere(where >= 0):
        box = (x * CELL, y * CELL, x * CELL + CELL - 1, y * CELL + CELL - 1)
        ImageDraw.Draw(picture).rectangle(box, fill=COLORS[where[y, x]])
    path = folder / f"{number}.png"
    picture.save(path)
    return path, np.stack([255 * (where == one) for one in range(2)]).astype(np.uint8)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("squares")
    (folder / "label.txt").write_text("0 red\n1 blue\n")
    for split, numbers in {"train": range(160), "dev": range(1000, 1040)}.items():
        drawn = [draw(folder, number) for number in numbers]
        maps = np.stack([one for _, one in drawn])
        write_list(folder / f"{split}.txt", Dataset([path for path, _ in drawn], maps.max(axis=(2, 3)) / 255))
        if split == "train":
            np.save(folder / NAME, maps)
    return folder


def job_of(data: Path, out: Path, **changes: object) -> FinetuneJob:
    plain = {
        "network": "tiny", "head": "pooled_local", "epochs": 12, "batch_size": 16, "frozen_epochs": 0, "learning_rate": 0.03,
        "backbone_rate": 1.0, "layer_decay": 1.0, "ema": 0.5, "augment": Augment(operations=0, cutout=0.0, crop=1.0),
        "loss": Loss(margin=0.03, local=1.0),
    }  # fmt: skip
    return FinetuneJob.model_validate({"data": data, "out": out, **plain, **changes})


def test_it_finds_what_is_where(data: Path, tmp_path: Path) -> None:
    job = job_of(data, tmp_path / "out")
    assert finetune(job).mean_average_precision > 0.95
    network = networks.build("tiny", 2, 0, job.head)
    values = load_file(job.out / CHECKPOINTS / checkpoints.BEST / checkpoints.AVERAGED)
    network.set_state_dict({name: paddle.to_tensor(value) for name, value in values.items()})
    drawn = [draw(tmp_path, number) for number in range(5000, 5010)]
    pixels = np.stack([np.asarray(Image.open(path)) for path, _ in drawn])
    assert isinstance(network, networks.Trained)
    features = network.backbone(paddle.to_tensor(to_tensor(pixels, networks.preprocess_of(job))))
    maps = network.head.with_maps(features)[1].numpy()
    where = np.stack([one for _, one in drawn])
    assert (where > 0).sum() > 15
    np.testing.assert_array_equal(maps > 0, where > 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head": "pooled"}, "loss.local needs a network that ends in the head pooled_local"),
        ({"augment": Augment(operations=0, crop=0.5)}, "loss.local needs augment.operations 0 and augment.crop 1"),
        ({"input_size": 64}, r"holds uint8 \[160, 2, 4, 4\]: expected uint8 \[160, 2, 8, 8\]"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, object], message: str, data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        finetune(job_of(data, tmp_path, **changes))


def test_maps_that_cannot_be_read(data: Path, tmp_path: Path) -> None:
    for name in ("label.txt", "train.txt", "dev.txt"):
        (tmp_path / name).write_text((data / name).read_text())
    with pytest.raises(UsageError, match=f"{NAME}' cannot be read"):
        finetune(job_of(tmp_path, tmp_path / "out"))
    np.save(tmp_path / NAME, np.array([{"a": "pickled object"}]), allow_pickle=True)
    with pytest.raises(UsageError, match="Python objects"):
        finetune(job_of(tmp_path, tmp_path / "out"))
