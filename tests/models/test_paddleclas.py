"""The six networks answer as PaddleClas's own, with weights that anyone can make again.

`fixtures/networks_golden.json` holds what PaddleClas (develop, d178931, the `*_ml_decoder_448` configurations, Paddle 3.3.1, eval mode)
answered: per network the number of entries and of values of its state_dict, a checksum of its names and shapes, and logits [2][80].
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

from mlcls_ray.models.build import build_network, load_pdparams
from mlcls_ray.models.networks import network_spec
from mlcls_ray.models.zoo import PUBLISHED

GOLDEN: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parent.parent / "fixtures/networks_golden.json").read_text()
)
QUICK = {"PP-LCNet_x1_0_ML": 2, "CLIP_vit_base_patch16_448_ML": 1}
"""Networks of the default tier, and how many of the two images they are asked about; the other networks take longer."""
TOLERANCE = 1e-4
ROUNDING = 1e-3
"""The features of deep networks reach thousands with these weights, and attention amplifies rounding: in float64, ResNet50's logits are up
to 2e-4 from the golden ones, PP-HGNetV2-B4's up to 5e-4. On a CPU of another kind a few logits differ that much."""


def fill(name: str, shape: list[int]) -> np.ndarray:
    """Make a parameter from its name, as the golden file's were made."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("._mean"):
        values = rng.normal(0, 0.05, shape)
    elif name.endswith("._variance"):
        values = rng.uniform(0.8, 1.2, shape)
    elif len(shape) > 1:
        scale = (2 / np.prod(shape[1:])) ** 0.5 if len(shape) == 4 else (1 / shape[0]) ** 0.5
        values = rng.normal(0, scale, shape)
    elif name.endswith("bias"):
        values = rng.normal(0, 0.02, shape)
    else:
        values = rng.uniform(0.9, 1.1, shape)
    return np.asarray(values, np.float32)


def golden_images() -> np.ndarray:
    return np.random.default_rng(7).normal(0, 1, (2, 3, 448, 448)).astype("float32")


def check_network(name: str, images: int, folder: Path) -> None:
    """Load the weights as PaddleClas would have saved them, and compare structure and logits with what it answered."""
    golden = GOLDEN[name]
    network = build_network(network_spec(name), 80)
    shapes = {key: list(tensor.shape) for key, tensor in network.state_dict().items()}
    listing = "\n".join(f"{key} {shapes[key]}" for key in sorted(shapes))
    assert len(shapes) == golden["parameters"]
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == golden["values"]
    assert zlib.crc32(listing.encode()) == golden["names_crc32"]
    path = folder / "weights.pdparams"
    paddle.save({key: paddle.to_tensor(fill(key, shape)) for key, shape in shapes.items()}, str(path))
    load_pdparams(network, path)
    network.eval()
    with paddle.no_grad():
        logits = network(paddle.to_tensor(golden_images()[:images])).numpy()
    difference = np.abs(logits - np.array(golden["logits"])[:images])
    assert np.mean(difference <= TOLERANCE) > 0.95
    assert difference.max() <= (TOLERANCE if name in QUICK else ROUNDING)


@pytest.mark.parametrize("name", QUICK)
def test_a_network_answers_as_paddleclas(name: str, tmp_path: Path) -> None:
    check_network(name, QUICK[name], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_every_network_answers_as_paddleclas(name: str, tmp_path: Path) -> None:
    check_network(name, 2, tmp_path)


def test_the_golden_file_has_all_published_networks() -> None:
    assert GOLDEN.keys() == PUBLISHED.keys()
