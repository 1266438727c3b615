"""Each of PaddleX's six networks learns, comes out as an inference folder, and is what a next training starts from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from mlcls_ray.devices import parse_device
from mlcls_ray.engines.paddle import PaddleEngine
from mlcls_ray.models.artifact import load_model
from mlcls_ray.registry import NETWORKS
from mlcls_ray.train import finetune as module
from mlcls_ray.train.config import FinetuneJob
from mlcls_ray.train.finetune import finetune
from tests.conftest import picture

CLASSES = ("cat", "dog")
SIZE = 96


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "label.txt").write_text("".join(f"{number} {name}\n" for number, name in enumerate(CLASSES)))
    for split, numbers in {"train": range(4), "dev": range(4, 6)}.items():
        for number in numbers:
            picture(SIZE, SIZE, seed=number).save(folder / f"{number}.png")
        lines = [f"{number}.png\t{number % 2},{1 - number % 2}\n" for number in numbers]
        (folder / f"{split}.txt").write_text("".join(lines))
    return folder


@pytest.mark.slow
@pytest.mark.usefixtures("loopback_ray")
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_trained_exported_and_started_from(name: str, data: Path, tmp_path: Path) -> None:
    job = FinetuneJob(
        data=data, out=tmp_path / "out", network=name, input_size=SIZE, epochs=2, batch_size=2, frozen_epochs=1
    )
    done = finetune(job)
    assert done.steps == 4
    model = load_model(done.model)
    assert (model.name, model.vocabulary, model.preprocess.input_size) == (name, CLASSES, (SIZE, SIZE))

    start = module.prepare(job.model_copy(update={"start": str(done.model), "out": tmp_path / "next"}))
    best = load_file(job.out / "checkpoints/best/averaged.safetensors")
    assert all(np.array_equal(value, best[name]) for name, value in start.averaged.values.items())
    pixels = np.stack([module._pixels(path, start.preprocess) for path in start.dev.paths])
    found = PaddleEngine(model, parse_device("cpu"), threads=2).score(pixels)
    np.testing.assert_allclose(found, module.score_dev(start), atol=1e-4)
