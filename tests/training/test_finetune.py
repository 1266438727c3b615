"""Fine-tuning a small network on a generated data set: it learns, stops and goes on to the step, and what comes out labels images."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from safetensors.numpy import load_file, save_file

from mlcls_ray.config import LabelJob
from mlcls_ray.errors import RunError, UsageError
from mlcls_ray.models.artifact import load_model
from mlcls_ray.runs.job import label
from mlcls_ray.training import finetune as module
from mlcls_ray.training.config import Augment, FinetuneJob, Loss
from mlcls_ray.training.evaluation import compare, evaluate
from mlcls_ray.training.finetune import finetune
from tests.conftest import MLCLS, run_cli

pytestmark = pytest.mark.usefixtures("loopback_ray")
COLORS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (40, 60, 220)}


def draw(number: int) -> tuple[Image.Image, list[int]]:
    """A grey picture with a disc of each of some colours."""
    random = np.random.default_rng(number)
    labels = (random.random(3) < 0.5).astype(int)
    picture = Image.fromarray((random.normal(120, 12, (48, 48, 3))).clip(0, 255).astype(np.uint8))
    for one, color in zip(labels, COLORS.values(), strict=True):
        if one:
            x, y = random.integers(2, 26, 2)
            ImageDraw.Draw(picture).ellipse((x, y, x + 20, y + 20), fill=color)
    return picture, labels.tolist()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("discs")
    (folder / "images").mkdir()
    (folder / "label.txt").write_text("".join(f"{number} {name}\n" for number, name in enumerate(COLORS)))
    for split, numbers in {"train": range(160), "dev": range(1000, 1050)}.items():
        lines = []
        for number in numbers:
            picture, labels = draw(number)
            picture.save(folder / f"images/{number}.png")
            lines.append(f"images/{number}.png\t{','.join(map(str, labels))}\n")
        (folder / f"{split}.txt").write_text("".join(lines))
    return folder


def job_of(data: Path, out: Path, **changes: object) -> FinetuneJob:
    out.mkdir(parents=True, exist_ok=True)
    plain = {
        "network": "tiny", "epochs": 12, "batch_size": 16, "frozen_epochs": 0, "learning_rate": 0.03, "backbone_rate": 1.0,
        "layer_decay": 1.0, "ema": 0.5, "augment": Augment(operations=0, cutout=0.0, crop=1.0),
        "loss": Loss(gamma_negative=1.0, clip=0.0),
    }  # fmt: skip
    return FinetuneJob.model_validate({"data": data, "out": out, **plain, **changes})


def notes(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def learned(loopback_ray: None, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("learned")
    done = finetune(job_of(data, out))
    assert done.mean_average_precision > 0.9
    return out


def test_it_learns_and_says_so(learned: Path) -> None:
    told = notes(learned)
    losses = [one["loss"] for one in told if "loss" in one]
    assert len(losses) == 12
    assert losses[-1] < losses[0] / 2
    assert (learned / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in (learned / "checkpoints").iterdir()) == ["best", "step-110", "step-120"]
    assert list((learned / "tensorboard").glob("events.out.tfevents.*"))
    card = (learned / "best_model/MODEL_CARD.md").read_text()
    assert "| red |" in card
    assert "mAP |" in card


def test_what_comes_out_labels_and_is_evaluated(learned: Path, data: Path, tmp_path: Path) -> None:
    model = learned / "best_model/inference"
    assert load_model(model).vocabulary == tuple(COLORS)
    label(LabelJob(inputs=(str(data / "images"),), out=str(tmp_path / "out"), model=str(model)))
    from mlcls_ray import open_labels

    result = evaluate(compare(open_labels(str(tmp_path / "out")), data / "dev.txt"))
    best = max(one["dev_map"] for one in notes(learned) if "dev_map" in one)
    assert result.mean_average_precision == pytest.approx(best, abs=0.01)
    assert result.overall_f1 > 0.8


@pytest.mark.slow
def test_the_same_seed_trains_the_same_model(data: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        finetune(job_of(data, tmp_path / name, epochs=1, augment=Augment()))
    first, second = (load_file(tmp_path / name / "checkpoints/best/weights.safetensors") for name in ("one", "two"))
    assert all(np.array_equal(first[key], second[key]) for key in first)
    finetune(job_of(data, tmp_path / "three", epochs=1, augment=Augment(), seed=1))
    third = load_file(tmp_path / "three/checkpoints/best/weights.safetensors")
    assert not all(np.array_equal(first[key], third[key]) for key in first)


def test_a_killed_training_goes_on_to_the_step(
    learned: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the middle of an epoch, it ends with the very weights of the one that was never stopped."""
    job = job_of(data, tmp_path / "stopped", epochs=2)
    step, done = module._step, []

    def killed(training: module.Training, batch: dict[str, np.ndarray], chunks: int) -> tuple[float, int]:
        done.append(1)
        if len(done) == 14:
            raise KeyboardInterrupt
        return step(training, batch, chunks)

    monkeypatch.setattr(module, "_step", killed)
    with pytest.raises(KeyboardInterrupt):
        finetune(job, save_interval_s=0.0)
    monkeypatch.undo()
    assert (job.out / "checkpoints/step-13").is_dir()
    finetune(job)
    finetune(job_of(data, tmp_path / "whole", epochs=2))
    first, second = (
        load_file(tmp_path / name / "checkpoints/step-20/weights.safetensors") for name in ("stopped", "whole")
    )
    assert all(np.allclose(first[key], second[key], atol=1e-6) for key in first)


@pytest.mark.slow
def test_ctrl_c_saves(data: Path, tmp_path: Path) -> None:
    config = tmp_path / "job.yaml"
    config.write_text("network: tiny\nepochs: 500\nfrozen_epochs: 0\n")
    command = [MLCLS, "finetune", "--config", config, "--data", data, "--out", tmp_path / "out"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "RAY_ADDRESS": ""})
    deadline = time.monotonic() + 120
    while not (tmp_path / "out/metrics.jsonl").exists():
        assert time.monotonic() < deadline
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert "is saved; the same command goes on" in (process.stderr.read() if process.stderr else "")
    assert list((tmp_path / "out/checkpoints").glob("step-*"))


def test_other_classes_get_a_new_head_said_aloud(
    learned: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "data"
    other.mkdir()
    (other / "label.txt").write_text("warm\ncold\n")
    for split in ("train", "dev"):
        lines = (data / f"{split}.txt").read_text().splitlines()
        (other / f"{split}.txt").write_text("".join(f"{data}/{line[:-2]}\n" for line in lines))
    job = job_of(other, tmp_path / "out", start=str(learned / "best_model/inference"), epochs=1)
    assert finetune(job).mean_average_precision > 0.5
    assert "are others: the head starts from random weights" in capsys.readouterr().err
    training = module.prepare(job_of(data, tmp_path / "same", start=str(learned / "best_model/inference"), epochs=1))
    best = load_file(learned / "checkpoints/best/averaged.safetensors")
    for name, value in training.network.state_dict().items():
        assert np.array_equal(value.numpy(), best[name]), "an inference folder's weights come back under their names"
    with pytest.raises(UsageError, match="was trained for other classes"):
        finetune(job_of(data, tmp_path / "out"))


def test_what_goes_wrong(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_step", lambda *_: (float("nan"), 1))
    with pytest.raises(RunError, match="the loss is nan at step 1; the checkpoint before it is kept"):
        finetune(job_of(data, tmp_path / "nan", epochs=1))
    monkeypatch.undo()
    broken = tmp_path / "data"
    broken.mkdir()
    for name in ("label.txt", "train.txt", "dev.txt"):
        (broken / name).write_text((data / name).read_text())
    with pytest.raises(UsageError, match="160 images of .*train.txt' are missing"):
        finetune(job_of(broken, tmp_path / "missing"))
    (broken / "train.txt").write_text("images/1.png\t1,0\n")
    with pytest.raises(UsageError, match="expected a path, a tab and 3 numbers"):
        finetune(job_of(broken, tmp_path / "vector"))
    with pytest.raises(UsageError, match="unknown network 'startr': did you mean 'starter'"):
        finetune(job_of(data, tmp_path / "name", network="startr"))
    wrong = tmp_path / "wrong.safetensors"
    save_file({"fc.weight": np.zeros((2, 2), np.float32)}, wrong)
    with pytest.raises(UsageError, match="is of another network"):
        finetune(job_of(data, tmp_path / "start", start=str(wrong)))
    assert "data" in run_cli("finetune", "--out", tmp_path / "x", check=2).stderr


def test_out_of_memory_halves_the_parts(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loss, sizes = module.asymmetric_loss, []

    def small(logits: object, *rest: object) -> object:
        sizes.append(len(logits))  # type: ignore[arg-type]
        if sizes[-1] > 8:
            raise MemoryError("out of memory")
        return loss(logits, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "asymmetric_loss", small)
    finetune(job_of(data, tmp_path / "out", epochs=1))
    assert sizes[:3] == [16, 8, 8]
    assert "batches are computed in 2 parts" in capsys.readouterr().err


def test_a_full_disk_keeps_what_was_saved(data: Path, small_disk: Path) -> None:
    job = job_of(data, small_disk / "out", epochs=2, keep_last=20)
    ballast = small_disk / "ballast"
    free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_bsize
    ballast.write_bytes(b"\0" * (free - 150_000))
    with pytest.raises(RunError, match="cannot be written: .*; those before it are kept"):
        finetune(job, save_interval_s=0.0)
    saved = module.checkpoints.newest(small_disk / "out/checkpoints")
    assert saved is not None
    ballast.unlink()
    assert finetune(job).steps == 20
