"""Fine-tuning a small network on a generated data set: it learns, stops and goes on to the step, and what comes out labels images."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image, ImageDraw
from safetensors.numpy import load_file, save_file

from mlcls_ray import open_labels
from mlcls_ray.config import LabelJob
from mlcls_ray.datasets.check import check
from mlcls_ray.datasets.split import read_classes, read_split, split_dataset
from mlcls_ray.errors import RunError, UsageError
from mlcls_ray.job.label import label
from mlcls_ray.models.artifact import load_model
from mlcls_ray.train import finetune as module
from mlcls_ray.train.config import Augment, FinetuneJob, Loss
from mlcls_ray.train.evaluate import compare, evaluate
from mlcls_ray.train.finetune import finetune
from mlcls_ray.train.optimizer import parts_of
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


def test_frozen_parts_stay_as_they_are(data: Path, tmp_path: Path) -> None:
    """Weights and the norms' statistics; what is behind them learns."""
    job = job_of(data, tmp_path / "out", network="starter", input_size=64, epochs=1, batch_size=80, frozen_parts=3)
    network = module.prepare(job).network
    before = {name: value.numpy().copy() for name, value in network.state_dict().items()}
    done = finetune(job)
    after = weights(job.out, f"step-{done.steps}")
    still = {name.rpartition(".")[0] for name, part in parts_of(network).items() if part < 3}
    assert len(still) == 37
    for name, value in before.items():
        assert np.array_equal(value, after[name]) == (name.rpartition(".")[0] in still), name


def test_frozen_statistics_stay_while_everything_learns(data: Path, tmp_path: Path) -> None:
    changes = {"network": "starter", "input_size": 64, "epochs": 1, "batch_size": 80, "frozen_statistics": True}
    job = job_of(data, tmp_path / "out", **changes)
    before = {name: value.numpy().copy() for name, value in module.prepare(job).network.state_dict().items()}
    after = weights(job.out, f"step-{finetune(job).steps}")
    statistics = {name for name in before if name.endswith(("._mean", "._variance"))}
    assert len(statistics) == 98
    for name, value in before.items():
        assert np.array_equal(value, after[name]) == (name in statistics), name


def test_the_best_epoch_was_one_in_which_only_the_head_learned(learned: Path, data: Path, tmp_path: Path) -> None:
    """A start that cannot be bettered: what is exported is the first epoch, whose optimizer knows nothing of the backbone."""
    start = str(learned / "best_model" / "inference")
    done = finetune(job_of(data, tmp_path, start=start, epochs=2, frozen_epochs=1, learning_rate=1e-6, ema=0.0))
    assert [one["dev_map"] for one in notes(tmp_path) if "dev_map" in one] == [done.mean_average_precision] * 2
    assert done.epoch == 1
    assert (done.model / "inference.yml").is_file()


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
    loss, sizes = module.training_loss, []

    def small(logits: object, *rest: object) -> object:
        sizes.append(len(logits))  # type: ignore[arg-type]
        if sizes[-1] > 8:
            raise MemoryError("out of memory")
        return loss(logits, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "training_loss", small)
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


def weights(out: Path, name: str = "best") -> dict[str, np.ndarray]:
    return load_file(out / f"checkpoints/{name}/weights.safetensors")


@pytest.mark.slow
def test_two_processes_train_what_one_does(data: Path, tmp_path: Path) -> None:
    """Each scores its half of a batch; with the gradients added up every step is the one of a single process."""
    alone, shared = (job_of(data, tmp_path / name, epochs=2, workers=count) for name, count in (("one", 1), ("two", 2)))
    finetune(alone)
    done = finetune(shared)
    assert done.steps == 20
    one, two = weights(alone.out, "step-20"), weights(shared.out, "step-20")
    assert all(np.allclose(one[key], two[key], atol=1e-4) for key in one)
    told, other = ([line["loss"] for line in notes(job.out) if "loss" in line] for job in (alone, shared))
    assert other == pytest.approx(told, abs=1e-4)
    assert load_model(done.model).vocabulary == tuple(COLORS)


@pytest.mark.slow
def test_ctrl_c_ends_two_processes_and_they_go_on(data: Path, tmp_path: Path) -> None:
    job = job_of(data, tmp_path / "out", epochs=40, workers=2)
    config = tmp_path / "job.yaml"
    config.write_text(yaml.safe_dump(job.model_dump(mode="json")))
    with subprocess.Popen([MLCLS, "finetune", "--config", config], stderr=subprocess.PIPE, text=True) as running:
        while not (job.out / "metrics.jsonl").exists():
            time.sleep(0.2)
            assert running.poll() is None, running.communicate()
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=120)
    assert running.returncode == 130, said
    assert "is saved; the same command goes on" in said
    before = len(notes(job.out))
    finetune(job.model_copy(update={"epochs": 41}))
    assert len([one for one in notes(job.out) if "dev_map" in one]) == 41
    assert before < len(notes(job.out))


def test_fewer_images_than_processes(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="batch_size 1 is less than workers 2"):
        finetune(job_of(data, tmp_path, batch_size=1, workers=2))


@pytest.mark.slow
def test_two_processes_find_relative_paths_and_tell_what_stops_them(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first = job_of(data, Path("first"), epochs=1)
    finetune(first)
    second = job_of(data, Path("second"), epochs=1, workers=2, start="first/best_model/inference")
    assert finetune(second).steps == 10
    with pytest.raises(RunError, match=r"a training process failed: .*the loss is (nan|inf) at step"):
        finetune(job_of(data, Path("third"), epochs=1, workers=2, learning_rate=1e30))


def test_coco_csv_and_parquet_train_as_the_list_does(data: Path, tmp_path: Path) -> None:
    """The same images in three more formats, without a label.txt: the classes come from the files."""
    names = sorted(COLORS)
    splits = {name: read_split(data / f"{name}.txt", tuple(COLORS)) for name in ("train", "dev")}
    labels = {
        name: [[one for one, is_there in zip(COLORS, row, strict=True) if is_there] for row in part.targets]
        for name, part in splits.items()
    }
    for name, part in splits.items():
        uris = [str(path) for path in part.paths]
        pq.write_table(pa.table({"uri": uris, "labels": labels[name]}), tmp_path / f"{name}.parquet")
        (tmp_path / f"{name}.csv").write_text(
            "uri,labels\n" + "".join(f"{uri},{';'.join(row)}\n" for uri, row in zip(uris, labels[name], strict=True))
        )
        told = {
            "categories": [{"id": 10 - place, "name": one} for place, one in enumerate(COLORS)],
            "images": [{"id": number, "file_name": uri} for number, uri in enumerate(uris)],
            "annotations": [
                {"image_id": number, "category_id": 10 - list(COLORS).index(one)}
                for number, row in enumerate(labels[name])
                for one in row
            ],
        }
        (tmp_path / f"{name}.json").write_text(json.dumps(told))
    for suffix, classes in {".parquet": tuple(names), ".csv": tuple(names), ".json": tuple(reversed(COLORS))}.items():
        folder = tmp_path / suffix[1:]
        folder.mkdir()
        for name in splits:
            (tmp_path / f"{name}{suffix}").rename(folder / f"{name}{suffix}")
        assert read_classes(folder, folder / f"train{suffix}") == classes
        found = read_split(folder / f"train{suffix}", classes)
        places = [classes.index(one) for one in COLORS]
        assert np.array_equal(found.targets[:, places], splits["train"].targets)
        assert check(folder).errors == 0
    done = finetune(job_of(tmp_path / "json", tmp_path / "out", epochs=1))
    assert load_model(done.model).vocabulary == tuple(reversed(COLORS))
    split_dataset(tmp_path / "csv/train.csv", tmp_path / "parts", 0.25, 0.0, 0)
    assert len(read_split(tmp_path / "parts/dev.txt", tuple(names)).paths) == 40


def test_a_table_becomes_a_data_set(learned: Path, data: Path, tmp_path: Path) -> None:
    model = learned / "best_model/inference"
    out = str(tmp_path / "out")
    label(LabelJob(inputs=(str(data / "images"),), out=out, model=str(model), limit=12))
    table = open_labels(out)
    first = table.sql("SELECT uri FROM labels ORDER BY uri").fetchall()[0][0]
    (tmp_path / "export.json").write_text(json.dumps([{"image": first, "labels": {"choices": ["red", "blue"]}}]))
    run_cli("dataset", "from-table", out, "--out", tmp_path / "hard", "--corrections", tmp_path / "export.json")
    hard = read_split(tmp_path / "hard/train.txt", tuple(COLORS))
    assert len(hard.paths) == 12
    assert hard.targets[[str(path) for path in hard.paths].index(first)].tolist() == [1.0, 0.0, 1.0]
    run_cli("dataset", "from-table", out, "--out", tmp_path / "soft", "--soft")
    soft = read_split(tmp_path / "soft/train.txt", tuple(COLORS))
    told = table.sql("SELECT all_scores FROM labels ORDER BY uri").fetchall()
    np.testing.assert_allclose(soft.targets, [row[0] for row in told], atol=1e-3)


@pytest.mark.parametrize("head", ["pooled", "pooled_local", "ml_decoder"])
def test_the_head_is_a_choice(head: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = finetune(job_of(data, tmp_path / "out", epochs=1, head=head))
    assert load_model(done.model).vocabulary == tuple(COLORS)
    finetune(job_of(data, tmp_path / "on", epochs=1, head=head, start=str(done.model)))
    assert "head starts from random weights" not in capsys.readouterr().err
    other = "pooled" if head == "ml_decoder" else "ml_decoder"
    finetune(job_of(data, tmp_path / "other", epochs=1, head=other, start=str(done.model)))
    assert "head starts from random weights" in capsys.readouterr().err
