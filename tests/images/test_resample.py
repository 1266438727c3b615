"""The compiled resize against Pillow: each byte the same, for any size."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlcls_ray.errors import ImageError
from mlcls_ray.images.preprocess import Preprocess
from mlcls_ray.images.resize import COMPILED_FILTERS, PIL_FILTERS, resize
from tests.engines.card.test_resize import SIZES, noise


def assert_same(image: np.ndarray, preprocess: Preprocess) -> None:
    out = np.full((2, *preprocess.pixels_shape), 0xCD, np.uint8)
    preprocess.to_pixels(image, compiled=True, out=out[0])
    np.testing.assert_array_equal(out[0], preprocess.to_pixels(image))
    assert (out[1] == 0xCD).all()


def by_pillow(size: tuple[int, int], interpolation: str) -> Preprocess:
    return Preprocess(size=size, backend="pil", interpolation=interpolation)


@pytest.mark.parametrize("interpolation", COMPILED_FILTERS)
@pytest.mark.parametrize(
    ("size", "target"),
    [*SIZES, ((640, 480), (448, 448)), ((480, 640), (448, 448)), ((2000, 1500), (448, 448)), ((30_000, 20), (24, 24))],
)
def test_the_pixels_are_pillows(size: tuple[int, int], target: tuple[int, int], interpolation: str) -> None:
    assert_same(noise(*size), by_pillow(target, interpolation))


def test_three_thousand_sizes() -> None:
    """Sides from 1 to 400, each way: images made smaller, larger, and both at once."""
    random = np.random.default_rng(3)
    for number in range(3000):
        width, height, *target = (int(side) for side in np.exp(random.uniform(0, np.log(400), 4)).round())
        assert_same(noise(width, height), by_pillow((target[0], target[1]), COMPILED_FILTERS[number % 2]))


@pytest.mark.parametrize("interpolation", COMPILED_FILTERS)
@pytest.mark.parametrize("size", [(60, 40), (40, 60), (20, 20), (9, 1000), (1000, 9), (250, 251), (32, 40)])
def test_the_short_side_and_a_crop(size: tuple[int, int], interpolation: str) -> None:
    assert_same(noise(*size), Preprocess(resize_short=32, crop=(28, 25), backend="pil", interpolation=interpolation))
    assert_same(noise(*size), Preprocess(size=(50, 40), crop=(33, 40), backend="pil", interpolation=interpolation))


@pytest.mark.parametrize(
    "preprocess", [by_pillow((9, 8), "LANCZOS4"), Preprocess(size=(9, 8)), by_pillow((9, 8), "BOX")]
)
def test_other_filters_are_left_to_their_libraries(preprocess: Preprocess) -> None:
    assert_same(noise(30, 20), preprocess)


def test_an_extreme_side_ratio_is_too_large() -> None:
    with pytest.raises(ImageError, match="would be resized to"):
        Preprocess(resize_short=256, crop=(224, 224), backend="pil", interpolation="BILINEAR").to_pixels(
            noise(2000, 1), compiled=True
        )


@pytest.mark.parametrize("interpolation", PIL_FILTERS)
@pytest.mark.parametrize("size", [(64, 48), (48, 30), (20, 25), (48, 31)])
def test_one_call_of_pillow_gives_the_same_where_the_width_comes_first(
    size: tuple[int, int], interpolation: str
) -> None:
    expected = Image.fromarray(noise(*size)).resize((40, 30), PIL_FILTERS[interpolation])
    np.testing.assert_array_equal(resize(noise(*size), (40, 30), "pil", interpolation), np.asarray(expected))


@pytest.mark.parametrize("size", [(48, 49), (9, 300), (480, 640)])
def test_an_image_that_pillow_13_begins_with_its_height_differs_by_a_level_at_most(size: tuple[int, int]) -> None:
    expected = Image.fromarray(noise(*size)).resize((40, 30), Image.Resampling.BILINEAR)
    actual = resize(noise(*size), (40, 30), "pil", "BILINEAR")
    assert np.abs(actual.astype(int) - np.asarray(expected)).max() <= 1


def test_a_machine_without_numba_or_a_folder_for_it_resizes_by_pillow(tmp_path: Path) -> None:
    """A folder that hides Numba: the worker goes on, and says so once."""
    (tmp_path / "numba.py").write_text("raise ImportError('no numba here')")
    script = "from mlcls_ray.images.resize import can_compile; print(can_compile(), can_compile())"
    command = [sys.executable, "-c", script]
    done = subprocess.run(
        command, env={"PYTHONPATH": f"{tmp_path}:{Path.cwd()}"}, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False False\n"
    assert done.stderr.count("no numba here") == 1
