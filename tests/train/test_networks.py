"""Each network is trained and exported, and its export can be trained again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from mlcls_ray.devices import parse_device
from mlcls_ray.engines.paddle import PaddleEngine
from mlcls_ray.models.artifact import load_model
from mlcls_ray.models.networks import network_spec
from mlcls_ray.registry import NETWORKS
from mlcls_ray.train.config import FinetuneJob
from mlcls_ray.train.dev_scores import load_pixels, score_dev
from mlcls_ray.train.distributed import ProcessGroup
from mlcls_ray.train.finetune import finetune
from mlcls_ray.train.prepare import prepare
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
def test_a_network_is_trained_exported_and_loaded_again(name: str, data: Path, tmp_path: Path) -> None:
    job = FinetuneJob(
        data=data, out=tmp_path / "out", network=name, input_size=SIZE, epochs=2, batch_size=2, head_only_epochs=1
    )
    result = finetune(job)
    assert result.steps == 4
    model = load_model(result.model)
    assert (model.name, model.network, model.vocabulary, model.preprocess.input_size) == (
        "out",
        network_spec(name).name,
        CLASSES,
        (SIZE, SIZE),
    )

    setup = prepare(job.model_copy(update={"init_from": str(result.model), "out": tmp_path / "next"}))
    weights = {name: tensor.numpy() for name, tensor in setup.network.state_dict().items()}
    best = load_file(job.out / "checkpoints/best/averaged.safetensors")
    assert all(np.array_equal(value, best[key]) for key, value in weights.items())
    pixels = np.stack([load_pixels(path, setup.preprocess) for path in setup.dev.paths])
    scores = PaddleEngine(model, parse_device("cpu"), threads=2).score(pixels)
    np.testing.assert_allclose(scores, score_dev(setup, weights, None, ProcessGroup()), atol=1e-4)
