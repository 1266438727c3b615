"""The frozen prefix of a network, run by the inference engine, gives the same features as its training form."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from mlcls_ray.devices import parse_device
from mlcls_ray.models.networks import network_spec
from mlcls_ray.train.frozen_backbone import forward, make_frozen_prefix
from mlcls_ray.train.networks import build, load_initial_weights, preprocess_of

CPU = parse_device("CPU")
"""As people may write it."""


def test_the_prefix_gives_the_features_of_the_training_form() -> None:
    spec = network_spec("starter")
    network = build(spec, 80)
    load_initial_weights(network, spec, None, tuple(str(number) for number in range(80)))
    preprocess = preprocess_of(spec, 64)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3)).astype(np.uint8)
    network.eval()
    with paddle.no_grad():
        expected = forward(network, None, pixels, preprocess).numpy()
        for freeze_fraction, block_count in ((1 / 8, 3), (1 / 2, 9), (1.0, 18)):
            prefix = make_frozen_prefix(network, freeze_fraction, CPU, preprocess)
            assert prefix is not None
            assert prefix.block_count == block_count
            np.testing.assert_allclose(forward(network, prefix, pixels, preprocess).numpy(), expected, atol=1e-3)


@pytest.mark.parametrize(
    ("network", "freeze_fraction", "device"),
    [
        pytest.param("starter", 0.0, "cpu", id="everything is trained"),
        pytest.param("starter", 0.5, "gpu:0", id="a GPU trains as fast as it scores"),
        pytest.param("PP-LCNet_x1_0_ML", 0.5, "cpu", id="the backbone is not a sequence of blocks"),
    ],
)
def test_there_is_no_prefix(network: str, freeze_fraction: float, device: str) -> None:
    spec = network_spec(network)
    assert make_frozen_prefix(build(spec, 2), freeze_fraction, parse_device(device), preprocess_of(spec, 64)) is None
