"""The frozen front of a network, run by the inference engine, gives what its training form gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle

from mlcls_ray.train import networks
from mlcls_ray.train.config import FinetuneJob
from mlcls_ray.train.frozen_backbone import forward, make_front


def test_the_front_gives_what_the_training_form_gives() -> None:
    job = FinetuneJob(data=Path("-"), out=Path("-"), network="starter", input_size=64)
    network = networks.build("starter", 80, seed=0)
    networks.load_start(network, job, tuple(str(number) for number in range(80)))
    preprocess = networks.preprocess_of(job)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3)).astype(np.uint8)
    network.eval()
    with paddle.no_grad():
        whole = forward(network, None, pixels, preprocess).numpy()
        for frozen_parts, blocks in ((1, 3), (4, 9), (8, 18)):
            front = make_front(network, frozen_parts, "cpu", preprocess)
            assert front is not None
            assert front.count == blocks
            np.testing.assert_allclose(forward(network, front, pixels, preprocess).numpy(), whole, atol=1e-3)


def test_what_has_no_front() -> None:
    job = FinetuneJob(data=Path("-"), out=Path("-"), network="starter", input_size=64)
    network, preprocess = networks.build("starter", 2, seed=0), networks.preprocess_of(job)
    assert make_front(network, 0, "cpu", preprocess) is None, "all of it learns"
    assert make_front(network, 4, "gpu:0", preprocess) is None, "a GPU trains as fast as it scores"
    official = networks.build("PP-LCNet_x1_0_ML", 2, seed=0)
    assert make_front(official, 4, "cpu", preprocess) is None, "its backbone is no sequence"
