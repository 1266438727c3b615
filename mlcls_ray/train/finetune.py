"""Fine-tuning: from labelled images to an inference folder, in one process or several; it goes on where it stopped, to the step."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import paddle
from paddle import nn

from mlcls_ray.datasets.formats import Dataset
from mlcls_ray.datasets.split import SUFFIXES, find_split, read_classes, read_split
from mlcls_ray.devices import parse_device
from mlcls_ray.engines.devices import check_device
from mlcls_ray.errors import ImageError, RunError, RunInterruptedError, UsageError
from mlcls_ray.images.decode import decode
from mlcls_ray.images.preprocess import Preprocess
from mlcls_ray.job.cluster import connect
from mlcls_ray.labels.calibration import Target, best_threshold
from mlcls_ray.labels.metrics import mean_average_precision
from mlcls_ray.models.zoo import STARTER
from mlcls_ray.stages.score import is_out_of_memory
from mlcls_ray.terminal import on_first_sigint
from mlcls_ray.train import checkpoints, networks
from mlcls_ray.train.batches import KNOWN, MAPS, PIXELS, TARGETS, epoch_batches
from mlcls_ray.train.config import FinetuneJob
from mlcls_ray.train.distributed import Processes, on_processes
from mlcls_ray.train.frozen_backbone import Front, forward, forward_with_maps, make_front
from mlcls_ray.train.local_maps import read_maps
from mlcls_ray.train.losses import local_loss, training_loss
from mlcls_ray.train.metrics_log import draw_curves, note, progress_bar
from mlcls_ray.train.model_card import write_card
from mlcls_ray.train.optimizer import AveragedWeights, is_head, make_optimizer, parts_of, rate_at

CHECKPOINTS = "checkpoints"
STOP = "stop"
"""A file among the checkpoints that asks a training to save and to end: what Ctrl-C leaves for its processes."""
INFERENCE = Path("best_model/inference")
SAVE_INTERVAL_S = 120.0
"""A training that is killed loses so much at most."""
DEV_BATCH = 32


class Trained(NamedTuple):
    """What came out: the inference folder, the best dev mAP (0..1), its epoch, and the steps that were done in all."""

    model: Path
    mean_average_precision: float
    epoch: int
    steps: int


class Training(NamedTuple):
    """What a training consists of while it runs."""

    job: FinetuneJob
    classes: tuple[str, ...]
    train: Dataset
    dev: Dataset
    preprocess: Preprocess
    network: nn.Layer
    optimizer: Any
    averaged: AveragedWeights
    processes: Processes = Processes()
    front: Front | None = None


def finetune(job: FinetuneJob, save_interval_s: float = SAVE_INTERVAL_S) -> Trained:
    """Train, evaluate after each epoch, keep the best, export it.

    Raises:
        UsageError: data, start weights or device are wrong; before anything is trained.
        RunError: the loss is no number any more, or a checkpoint cannot be written; what was saved is kept.
        RunInterruptedError: by Ctrl-C, after a checkpoint was written.
    """
    # Processes on other workers have another working directory.
    start = job.start if job.start in (None, STARTER) else str(Path(str(job.start)).absolute())
    job = job.model_copy(update={"data": job.data.absolute(), "out": job.out.absolute(), "start": start})
    request = job.out / CHECKPOINTS / STOP
    request.unlink(missing_ok=True)

    def ask() -> None:
        request.parent.mkdir(parents=True, exist_ok=True)
        request.touch()

    training = prepare(job)  # what is wrong is told before anything starts
    job.out.mkdir(parents=True, exist_ok=True)
    connect(None)
    with on_first_sigint(ask, "this step is finished and saved"):
        if job.workers == 1:
            train(training, save_interval_s)
        else:
            del training
            on_processes(
                lambda processes: train(prepare(job)._replace(processes=processes), save_interval_s),
                job.workers,
                job.device,
            )
    newest = checkpoints.newest(job.out / CHECKPOINTS)
    state = checkpoints.read_state(newest) if newest else checkpoints.State()
    if request.exists():
        request.unlink()
        if state.epoch < job.epochs:
            raise RunInterruptedError(f"interrupted at step {state.step}, which is saved; the same command goes on")
    return Trained(job.out / INFERENCE, state.best, state.best_epoch + 1, state.step)


def train(training: Training, save_interval_s: float) -> None:
    """What one process does, from the last checkpoint to the export; it ends early where `STOP` is there."""
    job, processes = training.job, training.processes
    folder = job.out / CHECKPOINTS
    state = checkpoints.State(classes=training.classes)
    found = checkpoints.newest(folder)
    if found:
        if checkpoints.read_state(found).classes != training.classes:
            raise UsageError(f"'{job.out}' was trained for other classes: give another --out")
        state = checkpoints.restore(found, training.network, training.averaged, training.optimizer)
        if processes.is_first:
            print(f"goes on at step {state.step} (epoch {state.epoch + 1})", file=sys.stderr)
    front = make_front(training.network, job.frozen_parts, job.device, training.preprocess)
    training = training._replace(front=front)
    processes.total(0.0)  # none begins to save while another one looks for what was saved
    steps_an_epoch = max(1, len(training.train.paths) // job.batch_size)
    with progress_bar(job.epochs * steps_an_epoch, state.step) as advance:
        while state.epoch < job.epochs:
            state, is_to_stop = _train_epoch(training, state, steps_an_epoch, folder, save_interval_s, advance)
            if is_to_stop:
                return
            state = _end_epoch(training, state, folder)
            if job.patience and state.epoch - 1 - state.best_epoch >= job.patience:
                break
    if processes.is_first:
        _export(training, state, folder)


def prepare(job: FinetuneJob) -> Training:
    """Read and check everything that training needs.

    Raises:
        UsageError: names what is wrong.
    """
    device = parse_device(job.device)
    check_device(device)
    paddle.set_device(f"{device.kind}:{device.index}" if device.kind != "cpu" else "cpu")
    if job.batch_size < job.workers:
        raise UsageError(f"batch_size {job.batch_size} is less than workers {job.workers}: each needs an image of it")
    files = {name: find_split(job.data, name) for name in ("train", "dev")}
    for name, path in files.items():
        if path is None:
            raise UsageError(f"'{job.data}' has no {name}.txt (or {', '.join(SUFFIXES[1:])})")
    train_file, dev_file = (path for path in files.values() if path)
    classes = read_classes(job.data, train_file)
    network = networks.build(job.network, len(classes), job.seed, job.head)
    networks.load_start(network, job, classes)
    preprocess = networks.preprocess_of(job)
    train = _read_images(train_file, classes)
    return Training(
        job=job,
        classes=classes,
        train=train._replace(maps=read_maps(job, network, preprocess, len(train.paths))),
        dev=_read_images(dev_file, classes),
        preprocess=preprocess,
        network=network,
        optimizer=make_optimizer(network, job),
        averaged=AveragedWeights(network, job.ema),
    )


def _read_images(path: Path, classes: tuple[str, ...]) -> Dataset:
    data = read_split(path, classes)
    missing = [one for one in data.paths if not one.is_file()]
    if missing:
        raise UsageError(
            f"{len(missing)} images of '{path}' are missing, the first is {missing[0]}; `mlcls dataset check` lists all"
        )
    return data


def _train_epoch(
    training: Training,
    state: checkpoints.State,
    steps_an_epoch: int,
    folder: Path,
    interval_s: float,
    advance: Any,
) -> tuple[checkpoints.State, bool]:
    """The rest of an epoch, from the step that `state` is at; and whether it ended early because that was asked for."""
    job, processes = training.job, training.processes
    steps = job.epochs * steps_an_epoch
    freeze(training.network, state.epoch < job.frozen_epochs, job)
    saved, chunks, losses = time.monotonic(), job.accumulate, []
    for batch in epoch_batches(training.train, job, training.preprocess, state.epoch, state.done, processes):
        rate = rate_at(state.step, steps, job)
        training.optimizer.set_lr(rate)
        paddle.seed(job.seed * 1_000_003 + state.step)  # dropout, the same after a resume
        loss, chunks = _step(training, batch, chunks)
        is_asked = processes.is_first and (folder / STOP).exists()
        is_due = processes.is_first and time.monotonic() - saved > interval_s
        is_to_stop, is_to_save = (one > 0 for one in processes.total(is_asked, is_due))
        if not math.isfinite(loss):
            raise RunError(
                f"the loss is {loss} at step {state.step + 1}; the checkpoint before it is kept. A lower learning_rate "
                f"(now {job.learning_rate:g}) usually helps"
            )
        training.averaged.update(training.network, state.step)
        losses.append(loss)
        state = state.model_copy(update={"step": state.step + 1, "done": state.done + 1})
        advance(loss)
        if processes.is_first and (is_to_stop or is_to_save):
            _save(training, state, folder)
            saved = time.monotonic()
        if is_to_stop:
            return state, True
    told = {"step": state.step, "epoch": state.epoch + 1, "rate": rate_at(state.step, steps, job)}
    if processes.is_first:
        note(job.out, {**told, "loss": float(np.mean(losses)) if losses else None})
    return state, False


def freeze(network: nn.Layer, is_head_alone: bool, job: FinetuneJob) -> None:
    """Let only the head learn, or all but so many parts of the backbone. The norms of what does not learn keep their statistics."""
    part_of = parts_of(network)
    still = {name for name, part in part_of.items() if is_head_alone or part < job.frozen_parts}
    network.train()
    for name, layer in network.named_sublayers():
        is_still = any(f"{name}.{own}" in still for own, _ in layer.named_parameters(include_sublayers=False))
        is_kept = job.frozen_statistics and isinstance(layer, nn.BatchNorm2D)
        if is_still or is_kept or (is_head_alone and not is_head(f"{name}.")):
            layer.training = False
    for name, one in network.named_parameters():
        if name in part_of:
            one.stop_gradient = name in still


def _step(training: Training, batch: dict[str, np.ndarray], chunks: int) -> tuple[float, int]:
    """One step over a batch in so many parts; in twice as many, where they do not fit into memory. Returns the loss and the parts.

    `batch` is this process's share; the loss is of the whole batch.
    """
    rows = min(training.job.batch_size, len(training.train.paths))
    while True:
        try:
            total = 0.0
            parts = np.array_split(np.arange(len(batch[PIXELS])), min(chunks, len(batch[PIXELS])))
            for part in parts:
                loss = _loss(training, {name: one[part] for name, one in batch.items()}) * (len(part) / rows)
                loss.backward()
                total += float(loss)
        except Exception as error:
            training.optimizer.clear_grad()
            if not is_out_of_memory(error) or chunks >= len(batch[PIXELS]):
                raise
            chunks *= 2
            print(f"out of memory: batches are computed in {chunks} parts from now on", file=sys.stderr)
            continue
        (total,) = training.processes.total(total)
        training.processes.add_gradients(training.network)
        if math.isfinite(total):
            training.optimizer.step()
        training.optimizer.clear_grad()
        return total, chunks


def _loss(training: Training, batch: dict[str, np.ndarray]) -> paddle.Tensor:
    told, known = training.job.loss, paddle.to_tensor(batch[KNOWN])
    given = (training.network, training.front, batch[PIXELS], training.preprocess)
    with paddle.amp.auto_cast(enable=training.job.precision == "amp"):
        logits, maps = forward_with_maps(*given) if told.local else (forward(*given), None)
    loss = training_loss(logits.astype("float32"), paddle.to_tensor(batch[TARGETS]), known, told)
    if maps is None:
        return loss
    return loss + told.local * local_loss(maps.astype("float32"), paddle.to_tensor(batch[MAPS]), known, told)


def _end_epoch(training: Training, state: checkpoints.State, folder: Path) -> checkpoints.State:
    """Evaluate, note, keep the best, save."""
    value = mean_average_precision(score_dev(training), training.dev.targets)
    is_best = value > state.best
    state = state.model_copy(
        update={
            "epoch": state.epoch + 1,
            "done": 0,
            **({"best": value, "best_epoch": state.epoch} if is_best else {}),
        }
    )
    if training.processes.is_first:
        note(training.job.out, {"step": state.step, "epoch": state.epoch, "dev_map": value})
        if is_best:
            checkpoints.save(folder, checkpoints.BEST, training.network, training.averaged, training.optimizer, state)
        _save(training, state, folder)
        draw_curves(training.job.out)
    return state


def score_dev(training: Training) -> np.ndarray:
    """float32 [N, C]: scores of the dev images by the averaged weights of the first process; each process scores its share of them."""
    network = networks.build(training.job.network, len(training.classes), 0, training.job.head)
    values = training.processes.of_first(training.averaged.values)
    network.set_state_dict({name: paddle.to_tensor(value) for name, value in values.items()})
    network.eval()
    own = list(training.processes.share(len(training.dev.paths)))
    scores = np.zeros(training.dev.targets.shape, np.float32)
    for start in range(0, len(own), DEV_BATCH):
        rows = own[start : start + DEV_BATCH]
        pixels = np.stack([_pixels(training.dev.paths[row], training.preprocess) for row in rows])
        with paddle.no_grad():
            logits = forward(network, training.front, pixels, training.preprocess)
            scores[rows] = nn.functional.sigmoid(logits).numpy()
    return training.processes.added(scores)


def _pixels(path: Path, preprocess: Preprocess) -> np.ndarray:
    try:
        return preprocess.to_pixels(decode(path.read_bytes()).image)
    except ImageError as error:
        raise UsageError(
            f"dev image '{path}' cannot be read: {error}; `mlcls dataset check` finds all of them"
        ) from None


def _save(training: Training, state: checkpoints.State, folder: Path) -> None:
    name = f"{checkpoints.PREFIX}{state.step}"
    checkpoints.save(folder, name, training.network, training.averaged, training.optimizer, state)
    checkpoints.forget(folder, training.job.keep_last)


def _export(training: Training, state: checkpoints.State, folder: Path) -> None:
    # Not its optimizer's state: where the best epoch was a frozen one, that has nothing of the backbone.
    training.averaged.values = checkpoints.read_arrays(folder / checkpoints.BEST, checkpoints.AVERAGED)
    scores = score_dev(training._replace(processes=Processes()))  # the others have ended
    threshold = best_threshold(scores.ravel(), training.dev.targets.ravel() > 0.5, Target("f1"))
    target = training.job.out / INFERENCE
    networks.export(training.averaged.values, training.job, training.classes, threshold, target)
    write_card(target.parent, training.job, training.classes, training.train, training.dev, scores, threshold, state)
