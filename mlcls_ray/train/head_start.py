"""Before the first epoch: the head is fitted in closed form on the features of the frozen network, and measured on the dev images.

This is the baseline of a training, and where it starts: no epoch is exported that is not better.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import paddle
from paddle import nn

from mlcls_ray.errors import ImageError
from mlcls_ray.images.decode import decode
from mlcls_ray.images.preprocess import Preprocess
from mlcls_ray.labels.metrics import mean_average_precision
from mlcls_ray.terminal import SILENT, Steps
from mlcls_ray.train import checkpoints
from mlcls_ray.train.closed_form import Readout, fit_readout
from mlcls_ray.train.dev_scores import load_pixels
from mlcls_ray.train.features import Features, head_of, make_extractor, read_features
from mlcls_ray.train.optimizer import AveragedWeights, make_optimizer
from mlcls_ray.train.prepare import Setup

MAX_IMAGES = 4000
"""More training images than this hardly change the fit; it takes a sample of them."""
MAX_NUMBERS = 1 << 26
"""Features held in memory at most: 256 MiB of float32. ML-Decoder has 768 for each class of each image."""
MAX_TARGETS = 2_000_000
"""Images times classes at most: with thousands of classes the fit would take longer than an epoch."""


class Baseline(NamedTuple):
    """dev mAP (0..1) before training: of the head that was taken over, if it knows all classes; and of the fitted head."""

    taken_over: float | None
    fitted: float | None

    @property
    def best(self) -> float:
        return max(value for value in self if value is not None)


def write_start(setup: Setup, folder: Path, steps: Steps = SILENT) -> None:
    """Fit the head, measure it, and write the checkpoint from which training starts; `best` too. Nothing, if the weights are random.

    Raises:
        UsageError: a dev image cannot be read.
        RunError: the checkpoint cannot be written.
    """
    baseline = fit_head(setup, steps) if setup.initial.source is not None else None
    if baseline is None:
        return
    network, job = setup.network, setup.job
    averaged, optimizer = AveragedWeights(network, job.ema_decay), make_optimizer(network, job)
    state = checkpoints.State(
        classes=setup.classes, best=baseline.best, fitted=baseline.fitted, taken_over=baseline.taken_over
    )
    for name in (checkpoints.BEST, f"{checkpoints.PREFIX}0"):  # in this order: a start without its best is made again
        checkpoints.save(folder, name, network, averaged, optimizer, state)


def fit_head(setup: Setup, steps: Steps = SILENT) -> Baseline | None:
    """Fit the head to the training images, in place, unless it was better before. Return dev mAP before and after.

    None: there is nothing to measure, because a class is new and the job, or a head without a linear layer at its end, allows no fit.
    """
    head, preprocess = head_of(setup), setup.preprocess
    is_known = np.array([name in setup.initial.known for name in setup.classes])
    rows = _sample(len(setup.train.paths), len(setup.classes), readout_width(head), setup.job.seed)
    can_fit = setup.job.fit_head and not setup.job.distill.logit_clip and len(rows) > 1
    if not can_fit and not is_known.all():
        return None
    extract, readout = make_extractor(setup), None
    if can_fit:
        steps.say(f"fitting the head to {len(rows):,} images")
        paths = [setup.train.paths[row] for row in rows]
        batches = list(read_features(head, extract, paths, lambda path: _pixels_or_grey(path, preprocess)))
        train = Features(*map(np.concatenate, zip(*batches, strict=True)))
        readout = fit_readout(train.inputs, train.logits, setup.train.targets[rows], is_known)
    steps.say(f"measuring it on {len(setup.dev.paths):,} dev images")
    before, after = [], []
    for batch in read_features(head, extract, setup.dev.paths, lambda path: load_pixels(path, preprocess)):
        before.append(batch.logits)
        after.append(batch.logits if readout is None else readout.logits(*batch))
    taken_over = _dev_map(before, setup) if is_known.all() else None
    fitted = None if readout is None else _dev_map(after, setup)
    if readout is not None and (taken_over is None or fitted is None or fitted >= taken_over):
        apply_readout(head, readout)
    return Baseline(taken_over, fitted)


def _dev_map(logits: list[np.ndarray], setup: Setup) -> float:
    """Return dev mAP, 0 if no class is on a dev image."""
    return float(np.nan_to_num(mean_average_precision(np.concatenate(logits), setup.dev.targets)))


def apply_readout(head: nn.Layer, readout: Readout) -> None:
    """Change a head's parameters, in place, so that it gives the logits of `readout`."""
    state = {name: tensor.numpy().copy() for name, tensor in head.state_dict().items()}
    for name, axis in head.CLASS_AXES.items():
        if name not in head.QUERIES:
            others = tuple(set(range(state[name].ndim)) - {axis})
            state[name] = state[name] * np.expand_dims(readout.keep, others)
    weight, bias = f"{head.READOUT}.weight", f"{head.READOUT}.bias"
    added = readout.weight if head.CLASS_AXES[weight] == 1 else readout.weight.T
    state[weight] = state[weight] + added.reshape(state[weight].shape)
    state[bias] = state[bias] + readout.bias
    head.set_state_dict({name: paddle.to_tensor(value) for name, value in state.items()})


def readout_width(head: nn.Layer) -> int:
    """Return how many numbers the last linear layer takes for an image, for all classes together; 0 if the head names no such layer."""
    if not hasattr(head, "READOUT"):
        return 0
    weight = f"{head.READOUT}.weight"
    shape = head.state_dict()[weight].shape
    return int(np.prod(shape[:-1] if head.CLASS_AXES[weight] == 1 else shape))


def _sample(images: int, classes: int, width: int, seed: int) -> np.ndarray:
    """Choose the training images for the fit: none, if the head takes no numbers."""
    limit = min(MAX_IMAGES, MAX_NUMBERS // width, MAX_TARGETS // classes) if width else 0
    return np.sort(np.random.default_rng(seed).permutation(images)[:limit])


def _pixels_or_grey(path: Path, preprocess: Preprocess) -> np.ndarray:
    """Read the pixels uint8 [H, W, 3] of a training image; grey where it cannot be read, as in training."""
    try:
        return preprocess.to_pixels(decode(path.read_bytes()).image)
    except (OSError, ImageError):
        width, height = preprocess.input_size
        return np.full((height, width, 3), 128, np.uint8)
