"""Scores of the dev images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import paddle
from paddle import nn

from mlcls_ray.errors import ImageError, UsageError
from mlcls_ray.images.decode import decode
from mlcls_ray.images.preprocess import Preprocess
from mlcls_ray.train.distributed import ProcessGroup
from mlcls_ray.train.frozen_backbone import FrozenPrefix, forward
from mlcls_ray.train.networks import build
from mlcls_ray.train.prepare import Setup

BATCH_SIZE = 32


def score_dev(
    setup: Setup, weights: Mapping[str, np.ndarray], prefix: FrozenPrefix | None, group: ProcessGroup
) -> np.ndarray:
    """Score the dev images, float32 [N, C], with given weights. Each process scores its share; all get all scores.

    Raises:
        UsageError: an image cannot be read.
    """
    network = build(setup.spec, len(setup.classes), head=setup.job.head)
    network.set_state_dict({name: paddle.to_tensor(value) for name, value in weights.items()})
    network.eval()
    rows = list(group.shard(len(setup.dev.paths)))
    scores = np.zeros(setup.dev.targets.shape, np.float32)
    for start in range(0, len(rows), BATCH_SIZE):
        batch = rows[start : start + BATCH_SIZE]
        pixels = np.stack([load_pixels(setup.dev.paths[row], setup.preprocess) for row in batch])
        with paddle.no_grad():
            logits = forward(network, prefix, pixels, setup.preprocess)
            scores[batch] = nn.functional.sigmoid(logits).numpy()
    return group.all_reduce(scores)


def load_pixels(path: Path, preprocess: Preprocess) -> np.ndarray:
    """Read an image as pixels uint8 [H, W, 3].

    Raises:
        UsageError: it cannot be decoded.
    """
    try:
        return preprocess.to_pixels(decode(path.read_bytes()).image)
    except ImageError as error:
        raise UsageError(f"dev image '{path}' cannot be read: {error}; `mlcls dataset check` lists all") from None
