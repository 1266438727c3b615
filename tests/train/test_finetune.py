"""Fine-tuning a tiny network on generated images: it learns, resumes at the exact step, and its export labels images."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from benchmarks.tiny_network import TINY
from PIL import Image, ImageDraw
from safetensors.numpy import load_file, save_file

from mlcls_ray import open_labels
from mlcls_ray.datasets.check import check
from mlcls_ray.datasets.split import read_classes, read_split, split_dataset
from mlcls_ray.devices import parse_device
from mlcls_ray.engines.paddle import PaddleEngine
from mlcls_ray.errors import RunError, UsageError
from mlcls_ray.job.check import check_job
from mlcls_ray.job.label import label
from mlcls_ray.labels.metrics import mean_average_precision
from mlcls_ray.models.artifact import load_model
from mlcls_ray.models.cache import open_model
from mlcls_ray.train import checkpoints
from mlcls_ray.train.config import Augment, FinetuneJob, Loss
from mlcls_ray.train.dev_scores import load_pixels
from mlcls_ray.train.distributed import ProcessGroup
from mlcls_ray.train.evaluate import compare, evaluate
from mlcls_ray.train.finetune import FinetuneResult, finetune
from mlcls_ray.train.freezing import backbone_sections
from mlcls_ray.train.loop import Trainer
from mlcls_ray.train.losses import training_loss
from mlcls_ray.train.metrics_log import StepPrinter, follow_epochs
from mlcls_ray.train.prepare import prepare
from tests.conftest import MLCLS, quick_job, run_cli

pytestmark = pytest.mark.usefixtures("loopback_ray")
COLORS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (40, 60, 220)}


def draw(number: int) -> tuple[Image.Image, list[int]]:
    """Draw a grey picture with a disc for each label that is 1."""
    random = np.random.default_rng(number)
    labels = (random.random(3) < 0.5).astype(int)
    picture = Image.fromarray((random.normal(120, 12, (48, 48, 3))).clip(0, 255).astype(np.uint8))
    for is_present, color in zip(labels, COLORS.values(), strict=True):
        if is_present:
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
    values = {
        "epochs": 12, "batch_size": 16, "head_only_epochs": 0, "learning_rate": 0.03, "backbone_lr_scale": 1.0,
        "layer_decay": 1.0, "ema_decay": 0.5, "freeze_fraction": 0.0, "augment": Augment(randaugment_n=0, cutout=0.0, min_crop_area=1.0),
        "loss": Loss(gamma_negative=1.0, clip=0.0),
    }  # fmt: skip
    return FinetuneJob.model_validate({"data": data, "out": out, **values, **changes})


def metrics(out: Path, name: str) -> list[float]:
    """Return the values of a metric in metrics.jsonl, one an epoch."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line[name] for line in lines if name in line]


def weights(out: Path, name: str = "best") -> dict[str, np.ndarray]:
    return load_file(out / f"checkpoints/{name}/weights.safetensors")


@pytest.fixture(scope="module")
def learned(loopback_ray: None, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a training; what it printed is in a file of that name with `.stderr`."""
    out = tmp_path_factory.mktemp("learned")
    with contextlib.redirect_stderr(io.StringIO()) as stderr:
        result = finetune(job_of(data, out), TINY)
    assert result.mean_average_precision > 0.9
    out.with_suffix(".stderr").write_text(stderr.getvalue(), "utf-8")
    return out


def test_the_loss_falls_and_everything_is_written(learned: Path) -> None:
    losses = metrics(learned, "loss")
    assert len(losses) == 12
    assert losses[-1] < losses[0] / 2
    assert (learned / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in (learned / "checkpoints").iterdir()) == ["best", "step-110", "step-120"]
    assert list((learned / "tensorboard").glob("events.out.tfevents.*"))
    card = (learned / "best_model/MODEL_CARD.md").read_text()
    assert "| red |" in card
    assert "mAP |" in card


def test_the_exported_model_labels_images_as_well_as_in_training(learned: Path, data: Path, tmp_path: Path) -> None:
    model = learned / "best_model/inference"
    assert load_model(model).vocabulary == tuple(COLORS)
    label(quick_job(inputs=(str(data / "images"),), out=str(tmp_path / "out"), model=str(model)))
    result = evaluate(compare(open_labels(str(tmp_path / "out")), data / "dev.txt"))
    assert result.mean_average_precision == pytest.approx(max(metrics(learned, "dev_map")), abs=0.01)
    assert result.overall_f1 > 0.8


@pytest.mark.slow
def test_the_same_seed_trains_the_same_model(data: Path, tmp_path: Path) -> None:
    for name, seed in (("first", 0), ("second", 0), ("third", 1)):
        finetune(job_of(data, tmp_path / name, epochs=1, augment=Augment(), seed=seed), TINY)
    first, second, third = (weights(tmp_path / name) for name in ("first", "second", "third"))
    assert all(np.array_equal(first[key], second[key]) for key in first)
    assert not all(np.array_equal(first[key], third[key]) for key in first)


def test_a_killed_training_resumes_at_the_exact_step(data: Path, tmp_path: Path) -> None:
    """Killed in the middle of an epoch and resumed, it ends with the weights of an uninterrupted training."""
    job = job_of(data, tmp_path / "killed", epochs=2)
    steps = 0

    def killing_loss(*arguments: Any) -> paddle.Tensor:
        nonlocal steps
        steps += 1
        if steps == 14:
            raise KeyboardInterrupt
        return training_loss(*arguments)

    with pytest.raises(KeyboardInterrupt):
        finetune(job, TINY, killing_loss, save_interval_s=0.0)
    assert (job.out / "checkpoints/step-13").is_dir()
    finetune(job, TINY)
    finetune(job_of(data, tmp_path / "whole", epochs=2), TINY)
    killed, whole = (weights(tmp_path / name, "step-20") for name in ("killed", "whole"))
    assert all(np.allclose(killed[key], whole[key], atol=1e-6) for key in killed)


def test_checkpoints_within_an_epoch_follow_the_clock(data: Path, tmp_path: Path) -> None:
    """The clock ticks once each time it is read: at the start, after each step, and after each save."""
    job = job_of(data, tmp_path / "out", epochs=1, keep_last=20)
    ticks = itertools.count()
    trainer = Trainer(prepare(job, TINY), ProcessGroup(), save_interval_s=3.5, clock=lambda: next(ticks))
    job.out.mkdir(parents=True, exist_ok=True)
    assert trainer.train()
    folders = {path.name for path in (job.out / checkpoints.FOLDER).iterdir()}
    assert folders == {"best", "step-4", "step-8", "step-10"}


@pytest.mark.slow
def test_a_frozen_fraction_keeps_its_weights_and_statistics(data: Path, tmp_path: Path) -> None:
    """Everything behind it is trained."""
    job = job_of(data, tmp_path / "out", input_size=64, epochs=1, batch_size=80, freeze_fraction=3 / 8)
    network = prepare(job).network
    before = {name: value.numpy().copy() for name, value in network.state_dict().items()}
    result = finetune(job)
    after = weights(job.out, f"step-{result.steps}")
    frozen = {name.rpartition(".")[0] for name, section in backbone_sections(network).items() if section < 3}
    assert len(frozen) == 37
    for name, value in before.items():
        assert np.array_equal(value, after[name]) == (name.rpartition(".")[0] in frozen), name


def test_frozen_batch_norms_keep_their_statistics_only(data: Path, tmp_path: Path) -> None:
    job = job_of(data, tmp_path / "out", input_size=64, epochs=1, batch_size=80, freeze_batchnorm=True)
    before = {name: value.numpy().copy() for name, value in prepare(job).network.state_dict().items()}
    after = weights(job.out, f"step-{finetune(job).steps}")
    statistics = {name for name in before if name.endswith(("._mean", "._variance"))}
    assert len(statistics) == 98
    for name, value in before.items():
        assert np.array_equal(value, after[name]) == (name in statistics), name


def test_a_best_epoch_with_a_frozen_backbone_is_exported(learned: Path, data: Path, tmp_path: Path) -> None:
    """The first epoch is exported, whose optimizer has no state of the backbone."""
    model = str(learned / "best_model" / "inference")
    changes = {"init_from": model, "epochs": 2, "head_only_epochs": 2, "fit_head": False}
    wrong = job_of(data, tmp_path, **changes, learning_rate=1e-6, ema_decay=0.0)
    result = finetune(wrong, TINY)
    assert metrics(tmp_path, "dev_map") == pytest.approx([result.mean_average_precision] * 2)
    assert (result.taken_over, result.fitted) == (pytest.approx(result.mean_average_precision), None)
    assert (result.model / "inference.yml").is_file()


def test_no_epoch_is_exported_that_is_worse_than_the_start(learned: Path, data: Path, tmp_path: Path) -> None:
    """A learning rate that destroys the network: what is exported is the start, with its head fitted in closed form."""
    model = str(learned / "best_model" / "inference")
    job = job_of(data, tmp_path / "mine", init_from=model, epochs=1, learning_rate=50.0, ema_decay=0.0)
    result = finetune(job, TINY)
    assert result.epoch == 0
    assert result.taken_over is not None
    assert result.fitted is not None
    assert result.mean_average_precision == max(result.taken_over, result.fitted) > metrics(job.out, "dev_map")[0]
    card = (result.model.parent / "MODEL_CARD.md").read_text()
    assert card.startswith("# mine: tiny, fine-tuned")
    assert "No epoch was better than the start by dev mAP" in card
    setup = prepare(job, TINY)
    exported = PaddleEngine(load_model(result.model), parse_device("cpu"), 1)
    scores = exported.score(np.stack([load_pixels(path, setup.preprocess) for path in setup.dev.paths]))
    assert mean_average_precision(scores, setup.dev.targets) == pytest.approx(result.mean_average_precision, abs=1e-3)


def test_a_model_has_a_name_of_its_own(learned: Path, data: Path, tmp_path: Path) -> None:
    """In tables it stands beside the model that it was trained from; PaddleX knows it by its network's name."""
    model = load_model(learned / "best_model/inference")
    assert (model.name, model.network) == (learned.name, "tiny")
    assert open_model(str(learned)).fingerprint == model.fingerprint, "the output of a fine-tuning stands for its model"
    job = job_of(data, tmp_path / "out", epochs=1, init_from=str(learned), name="Möwen 2")
    again = load_model(finetune(job, TINY).model)
    assert again.name == "Möwen 2"
    assert yaml.safe_load((again.folder / "inference.yml").read_text())["Global"]["model_name"] == "tiny"
    both = quick_job(inputs=(str(data / "images"),), out=str(tmp_path / "labels"), models=(str(learned), str(job.out)))
    checked = check_job(both)
    assert [(model.name, Path(model.store.root).name) for model in checked.models] == [
        (learned.name, learned.name),
        ("Möwen 2", "Möwen 2"),
    ]


def test_each_epoch_is_told(learned: Path) -> None:
    shown = learned.with_suffix(".stderr").read_text("utf-8")
    maps = metrics(learned, "dev_map")
    assert re.findall(r"epoch (\d+)/12: loss \d+\.\d{3}, dev mAP ([\d.]+) %", shown) == [
        (str(number), f"{100 * value:.1f}") for number, value in enumerate(maps, 1)
    ]


def test_without_a_terminal_a_line_a_minute_tells_the_steps(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    printer = StepPrinter(600, 100, lambda: now[0])
    for _ in range(7):
        now[0] += 20
        printer.show(0.5)
    assert capsys.readouterr().err == (
        "step 103 of 600: loss 0.500, 166 min left\nstep 106 of 600: loss 0.500, 165 min left\n"
    )


def test_epochs_of_other_processes_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are read from metrics.jsonl, of which a line may be half written."""
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 5, "epoch": 1, "dev_map": 0.5}\n')
    rounds = iter(
        [
            '{"step": 9, "epoch": 2, "loss": 0.25}\n{"step": 9, "ep',
            'och": 2, "dev_map": 0.75}\n',
            '{"step": 13, "epoch": 3, "dev_map": 0.6}\n',
        ]
    )

    def wait(seconds: float) -> bool:
        part = next(rounds, None)
        with path.open("a") as stream:
            stream.write(part or "")
        return part is None

    follow_epochs(tmp_path, 4, 0.5, wait)
    assert capsys.readouterr().err == (
        "epoch 2/4: loss 0.250, dev mAP 75.0 %, the best so far\nepoch 3/4: loss 0.250, dev mAP 60.0 %\n"
    )


def interrupt(out: Path, config: Path) -> None:
    """Start a training by the command line, and press Ctrl-C after its first epoch."""
    command = [MLCLS, "finetune", "--config", config]
    environment = {**os.environ, "RAY_ADDRESS": ""}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        deadline = time.monotonic() + 200
        while not (out / "metrics.jsonl").exists():
            assert time.monotonic() < deadline
            assert process.poll() is None, process.communicate()
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=120)
    assert process.returncode == 130, stderr
    assert "is saved; the same command resumes" in stderr


@pytest.mark.slow
def test_ctrl_c_saves(data: Path, tmp_path: Path) -> None:
    job = job_of(data, tmp_path / "out", epochs=500, input_size=32, freeze_fraction=1.0)
    config = tmp_path / "job.yaml"
    config.write_text(yaml.safe_dump(job.model_dump(mode="json")))
    interrupt(job.out, config)
    assert list((job.out / "checkpoints").glob("step-*"))


def test_other_classes_get_a_new_head_and_a_note(
    learned: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(learned / "best_model/inference")
    other = tmp_path / "data"
    other.mkdir()
    (other / "label.txt").write_text("red\ncold\n")
    for split in ("train", "dev"):
        lines = (data / f"{split}.txt").read_text().splitlines()
        (other / f"{split}.txt").write_text("".join(f"{data}/{line[:-2]}\n" for line in lines))
    job = job_of(other, tmp_path / "out", init_from=model, epochs=1)
    assert finetune(job, TINY).mean_average_precision > 0.5
    assert "has 1 of the 2 classes: the head's parts for the others are new" in capsys.readouterr().err
    setup = prepare(job_of(data, tmp_path / "same", init_from=model, epochs=1), TINY)
    best = load_file(learned / "checkpoints/best/averaged.safetensors")
    for name, value in setup.network.state_dict().items():
        assert np.array_equal(value.numpy(), best[name]), "an inference folder's weights are found by their names"
    with pytest.raises(UsageError, match="was trained for other classes"):
        finetune(job_of(data, tmp_path / "out"), TINY)


def test_a_loss_that_is_nan_ends_the_training(data: Path, tmp_path: Path) -> None:
    def nan_loss(logits: paddle.Tensor, *rest: Any) -> paddle.Tensor:
        return logits.sum() * float("nan")

    with pytest.raises(RunError, match="the loss is nan at step 1; the checkpoint before it is kept"):
        finetune(job_of(data, tmp_path, epochs=1), TINY, nan_loss)


def test_errors_name_what_is_wrong(data: Path, tmp_path: Path) -> None:
    broken = tmp_path / "data"
    broken.mkdir()
    for name in ("label.txt", "train.txt", "dev.txt"):
        (broken / name).write_text((data / name).read_text())
    with pytest.raises(UsageError, match=r"160 images of .*train.txt' are missing"):
        finetune(job_of(broken, tmp_path / "missing"), TINY)
    (broken / "train.txt").write_text("images/1.png\t1,0\n")
    with pytest.raises(UsageError, match="expected a path, a tab and 3 numbers"):
        finetune(job_of(broken, tmp_path / "vector"), TINY)
    with pytest.raises(UsageError, match="unknown network 'startr': did you mean 'starter'"):
        prepare(job_of(data, tmp_path / "name").model_copy(update={"network": "startr"}))
    wrong = tmp_path / "wrong.safetensors"
    save_file({"fc.weight": np.zeros((2, 2), np.float32)}, wrong)
    with pytest.raises(UsageError, match="is of another network"):
        finetune(job_of(data, tmp_path / "weights", init_from=str(wrong)), TINY)
    assert "data" in run_cli("finetune", "--out", tmp_path / "x", check=2).stderr


def test_out_of_memory_doubles_the_parts_of_a_batch(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = []

    def limited_loss(logits: paddle.Tensor, *rest: Any) -> paddle.Tensor:
        sizes.append(len(logits))
        if sizes[-1] > 8:
            raise MemoryError("out of memory")
        return training_loss(logits, *rest)

    finetune(job_of(data, tmp_path / "out", epochs=1), TINY, limited_loss)
    assert sizes[:3] == [16, 8, 8]
    assert "batches are computed in 2 parts" in capsys.readouterr().err


def test_a_full_disk_keeps_older_checkpoints(data: Path, small_disk: Path) -> None:
    job = job_of(data, small_disk / "out", epochs=2, keep_last=20)
    ballast = small_disk / "ballast"
    free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_bsize
    ballast.write_bytes(b"\0" * (free - 150_000))
    with pytest.raises(RunError, match=r"cannot be written: .*; older checkpoints are kept"):
        finetune(job, TINY, save_interval_s=0.0)
    assert checkpoints.newest(small_disk / "out/checkpoints") is not None
    ballast.unlink()
    assert finetune(job, TINY).steps == 20


@pytest.mark.slow
def test_two_processes_train_like_one(data: Path, tmp_path: Path) -> None:
    """Each takes half of a batch; their added gradients are those of a single process."""
    alone, shared = (job_of(data, tmp_path / name, epochs=2, workers=count) for name, count in (("one", 1), ("two", 2)))
    finetune(alone, TINY)
    result = finetune(shared, TINY)
    assert result.steps == 20
    expected, actual = weights(alone.out, "step-20"), weights(shared.out, "step-20")
    assert all(np.allclose(expected[key], actual[key], atol=1e-4) for key in expected)
    assert metrics(shared.out, "loss") == pytest.approx(metrics(alone.out, "loss"), abs=1e-4)
    assert load_model(result.model).vocabulary == tuple(COLORS)


@pytest.mark.slow
def test_ctrl_c_ends_two_processes_and_they_resume(data: Path, tmp_path: Path) -> None:
    job = job_of(data, tmp_path / "out", epochs=6, workers=2, input_size=32, freeze_fraction=1.0)
    config = tmp_path / "job.yaml"
    config.write_text(yaml.safe_dump(job.model_dump(mode="json")))
    interrupt(job.out, config)
    before = len(metrics(job.out, "dev_map"))
    finetune(job.model_copy(update={"epochs": 7}))
    assert before < len(metrics(job.out, "dev_map")) == 7


def test_fewer_images_than_processes_are_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="batch_size 1 is less than workers 2"):
        finetune(job_of(data, tmp_path, batch_size=1, workers=2), TINY)


@pytest.mark.slow
def test_two_processes_find_relative_paths_and_report_errors(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    finetune(job_of(data, Path("first"), epochs=1), TINY)
    second = job_of(data, Path("second"), epochs=1, workers=2, init_from="first/best_model/inference")
    assert finetune(second, TINY).steps == 10
    with pytest.raises(RunError, match=r"a training process failed: .*the loss is (nan|inf) at step"):
        finetune(job_of(data, Path("third"), epochs=1, workers=2, learning_rate=1e30), TINY)


def test_coco_csv_and_parquet_train_like_the_list(data: Path, tmp_path: Path) -> None:
    """The same images in three more formats, without a label.txt: the classes are read from the files."""
    names = sorted(COLORS)
    splits = {name: read_split(data / f"{name}.txt", tuple(COLORS)) for name in ("train", "dev")}
    labels = {
        name: [[color for color, value in zip(COLORS, row, strict=True) if value] for row in part.targets]
        for name, part in splits.items()
    }
    for name, part in splits.items():
        uris = [str(path) for path in part.paths]
        pq.write_table(pa.table({"uri": uris, "labels": labels[name]}), tmp_path / f"{name}.parquet")
        (tmp_path / f"{name}.csv").write_text(
            "uri,labels\n" + "".join(f"{uri},{';'.join(row)}\n" for uri, row in zip(uris, labels[name], strict=True))
        )
        instances = {
            "categories": [{"id": 10 - place, "name": color} for place, color in enumerate(COLORS)],
            "images": [{"id": number, "file_name": uri} for number, uri in enumerate(uris)],
            "annotations": [
                {"image_id": number, "category_id": 10 - list(COLORS).index(color)}
                for number, row in enumerate(labels[name])
                for color in row
            ],
        }
        (tmp_path / f"{name}.json").write_text(json.dumps(instances))
    for suffix, classes in {".parquet": tuple(names), ".csv": tuple(names), ".json": tuple(reversed(COLORS))}.items():
        folder = tmp_path / suffix[1:]
        folder.mkdir()
        for name in splits:
            (tmp_path / f"{name}{suffix}").rename(folder / f"{name}{suffix}")
        assert read_classes(folder, folder / f"train{suffix}") == classes
        targets = read_split(folder / f"train{suffix}", classes).targets
        assert np.array_equal(targets[:, [classes.index(color) for color in COLORS]], splits["train"].targets)
        assert check(folder).errors == 0
    result = finetune(job_of(tmp_path / "json", tmp_path / "out", epochs=1), TINY)
    assert load_model(result.model).vocabulary == tuple(reversed(COLORS))
    split_dataset(tmp_path / "csv/train.csv", tmp_path / "parts", 0.25, 0.0, 0)
    assert len(read_split(tmp_path / "parts/dev.txt", tuple(names)).paths) == 40


def test_a_label_table_becomes_a_data_set(learned: Path, data: Path, tmp_path: Path) -> None:
    model = learned / "best_model/inference"
    out = str(tmp_path / "out")
    label(quick_job(inputs=(str(data / "images"),), out=out, model=str(model), limit=12))
    table = open_labels(out)
    first = table.sql("SELECT uri FROM labels ORDER BY uri").fetchall()[0][0]
    (tmp_path / "export.json").write_text(json.dumps([{"image": first, "labels": {"choices": ["red", "blue"]}}]))
    run_cli("dataset", "from-table", out, "--out", tmp_path / "hard", "--corrections", tmp_path / "export.json")
    hard = read_split(tmp_path / "hard/train.txt", tuple(COLORS))
    assert len(hard.paths) == 12
    assert hard.targets[[str(path) for path in hard.paths].index(first)].tolist() == [1.0, 0.0, 1.0]
    run_cli("dataset", "from-table", out, "--out", tmp_path / "soft", "--soft")
    soft = read_split(tmp_path / "soft/train.txt", tuple(COLORS))
    scores = table.sql("SELECT all_scores FROM labels ORDER BY uri").fetchall()
    np.testing.assert_allclose(soft.targets, [row[0] for row in scores], atol=1e-3)


@pytest.mark.parametrize(
    "head",
    [
        pytest.param("pooled", marks=pytest.mark.slow),
        pytest.param("pooled_local", marks=pytest.mark.slow),
        "ml_decoder",
    ],
)
def test_every_head_is_trained_and_loaded_again(
    head: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def train(name: str, **changes: object) -> FinetuneResult:
        return finetune(job_of(data, tmp_path / name, epochs=1, **changes), TINY)

    model = train("out", head=head).model
    assert load_model(model).vocabulary == tuple(COLORS)
    train("same", head=head, init_from=str(model))
    assert "head" not in capsys.readouterr().err.replace("fitting the head", "")
    train("other", head="pooled" if head == "ml_decoder" else "ml_decoder", init_from=str(model))
    assert "has another head: the head is new" in capsys.readouterr().err
