"""The check for machines with a card: on the card of host memory it finds no difference; without a card it says what is missing."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from benchmarks import check_card

from mlcls_ray.engines.card.cuda import BACKENDS, OPTIONS
from tests.engines.card.host_card import HostCard, decode_jpeg
from tests.engines.card.host_cuda import Codec, Cupy
from tests.engines.card.test_decoder import jpeg


def encoded(count: int = 3) -> list[check_card.Encoded]:
    images = [jpeg(70 + number, 50, orientation=1 + 5 * (number % 2)) for number in range(count)]
    return [pair for image_bytes in images if (pair := check_card.for_card(image_bytes))]


def test_two_equal_decoders_differ_in_nothing() -> None:
    report = check_card.check(HostCard(), encoded(), sizes=10, batch_sizes=(2,), seconds=0.01)
    assert report["ok"] and report["decode"] == {
        "images": 3, "decoded": 3, "mean_difference": 0.0, "worst_mean": 0.0, "largest": 0
    }  # fmt: skip
    assert report["resize_photographs"]["bytes"] == 3 * 3 * (384 * 384 + 224 * 224)
    assert report["resize_photographs"]["different_bytes"] == report["resize_noise"]["different_bytes"] == 0
    assert all(count > 0 for count in report["damaged"].values())


def test_each_set_of_options_is_measured() -> None:
    libraries = Cupy(), Codec(refuses_strict=True)
    found = check_card.compare_decoders(0, encoded(), seconds=0.01, libraries=libraries)
    assert len(found) == len(BACKENDS) * len(OPTIONS)
    for name, measured in found.items():
        assert ("error" in measured) if "extra_flags" in name else measured["images_per_s"] > 0


def test_it_finds_a_card_that_decodes_otherwise() -> None:
    def brighter(image_bytes: bytes) -> np.ndarray | None:
        image = decode_jpeg(image_bytes)
        return None if image is None else np.minimum(image.astype(np.int16) + 2, 255).astype(np.uint8)

    decoded = check_card.check_decode(HostCard(decode=brighter), encoded())
    assert decoded["largest"] == 2 and 1 < decoded["mean_difference"] <= 2


@pytest.mark.skipif(importlib.util.find_spec("cupy") is not None, reason="CuPy is installed here")
def test_without_a_card_it_says_what_is_missing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert check_card.main([str(tmp_path)]) == 1
    report = json.loads(capsys.readouterr().out)
    assert not report["ok"] and "pip install 'mlcls-ray[gpu]'" in report["problem"]
