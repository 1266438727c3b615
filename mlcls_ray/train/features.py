"""The inputs that a head takes from the frozen network before it, for images in files."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import paddle
from paddle import nn

from mlcls_ray.engines.paddle import PaddleEngine
from mlcls_ray.images.preprocess import to_tensor
from mlcls_ray.models.artifact import load_model
from mlcls_ray.models.convert.paddle import export_network, write_config
from mlcls_ray.train.frozen_backbone import THREADS
from mlcls_ray.train.prepare import Setup

BATCH_SIZE = 16
Extractor = Callable[[np.ndarray], paddle.Tensor]
"""Pixels uint8 [N, H, W, 3] → the feature maps that the head takes, float32 [N, C, h, w]."""


class Features(NamedTuple):
    """The inputs of a head's last linear layer, float32 [N, F] or [N, C, F], and the head's logits, float32 [N, C]."""

    inputs: np.ndarray
    logits: np.ndarray


def head_of(setup: Setup) -> nn.Layer:
    return getattr(setup.network, setup.spec.head_attribute)


def make_extractor(setup: Setup) -> Extractor:
    """Make the function that runs a network without its head. On a CPU the inference engine does, several times as fast as Paddle."""
    network, head, preprocess = setup.network, head_of(setup), setup.preprocess
    network.eval()
    if not setup.job.device.is_cpu:
        return lambda pixels: _before(network, head, paddle.to_tensor(to_tensor(pixels, preprocess)))
    setattr(network, setup.spec.head_attribute, nn.Identity())
    try:
        with tempfile.TemporaryDirectory(prefix="mlcls-features-") as temporary:
            folder = Path(temporary)
            # In a layer of its own: the export changes the layer that it is given.
            export_network(nn.Sequential(network), preprocess.input_size[0], folder)
            write_config(folder, "features", preprocess, ["features"], 0.5)
            engine = PaddleEngine(load_model(folder), setup.job.device, THREADS)
    finally:
        setattr(network, setup.spec.head_attribute, head)
    return lambda pixels: paddle.to_tensor(engine.run(pixels))


def _before(network: nn.Layer, head: nn.Layer, x: paddle.Tensor) -> paddle.Tensor:
    seen: list[paddle.Tensor] = []
    hook = head.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    try:
        network(x)
    finally:
        hook.remove()
    return seen[0]


def read_features(
    head: nn.Layer, extract: Extractor, paths: Sequence[Path], load: Callable[[Path], np.ndarray]
) -> Iterator[Features]:
    """Compute features in batches. `load` reads the pixels uint8 [H, W, 3] of a file."""
    head.eval()
    for start in range(0, len(paths), BATCH_SIZE):
        pixels = np.stack([load(path) for path in paths[start : start + BATCH_SIZE]])
        with paddle.no_grad():
            maps = extract(pixels)
            inputs = head.readout_input(maps).numpy() if hasattr(head, "READOUT") else np.zeros((len(pixels), 0))
            yield Features(inputs, head(maps).numpy())
