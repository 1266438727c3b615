"""The card's resize, compiled for the CPU, against Pillow: each byte the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from mlcls_ray.engines.card.geometry import FILTERS, geometry, unsupported_reason
from mlcls_ray.engines.card.resize import ResizeJob, resize
from mlcls_ray.images.preprocess import Preprocess
from tests.engines.card.host_card import HostCard

ORIENTATION = 0x0112
SIZES = [
    ((64, 48), (56, 56)),
    ((1, 1), (40, 30)),
    ((1, 300), (30, 30)),
    ((300, 1), (30, 30)),
    ((2, 2), (1, 1)),
    ((500, 333), (1, 1)),
    ((32, 32), (32, 32)),
    ((64, 32), (32, 32)),
    ((32, 20), (32, 41)),
    ((17, 13), (200, 150)),
    ((9000, 3), (24, 24)),
    ((3, 9000), (24, 24)),
    ((257, 255), (128, 127)),
]
"""(size, target), each (width, height)."""


def noise(width: int, height: int, seed: int = 0) -> np.ndarray:
    """An image with everything that rounds: noise, and corners of black and white."""
    image = np.random.default_rng([seed, width, height]).integers(0, 256, (height, width, 3), np.uint8)
    image[: height // 3, : width // 3] = 0
    image[height // 2 :, width // 2 :] = 255
    return image


def upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Turn an image as Pillow does it by EXIF."""
    stored = Image.fromarray(image)
    stored.getexif()[ORIENTATION] = orientation
    return np.asarray(ImageOps.exif_transpose(stored))


def preprocess_of(size: tuple[int, int], interpolation: str = "BILINEAR") -> Preprocess:
    return Preprocess(size=size, backend="pil", interpolation=interpolation)


def resized(
    images: list[np.ndarray], preprocess: Preprocess, orientations: list[int] | None = None, row_padding: int = 0
) -> np.ndarray:
    """Resize images in one batch, into every second row of the output."""
    card = HostCard(row_padding=row_padding)
    output = card.empty((2 * len(images), *preprocess.input_size[::-1], 3), np.uint8)
    jobs = []
    for row, (image, orientation) in enumerate(zip(images, orientations or [1] * len(images), strict=True)):
        plan = geometry(preprocess, *upright(image, orientation).shape[1::-1])
        assert plan is not None
        jobs.append(ResizeJob(card.place(image), orientation, plan, 2 * row))
    resize(card, jobs, preprocess.interpolation, output)
    card.synchronize()
    assert (output[1::2] == 0xCD).all()  # nothing but the rows that were asked for
    return output[::2]


def assert_same(images: list[np.ndarray], preprocess: Preprocess, orientations: list[int] | None = None) -> None:
    turned = [upright(image, turn) for image, turn in zip(images, orientations or [1] * len(images), strict=True)]
    expected = np.stack([preprocess.to_pixels(image) for image in turned])
    np.testing.assert_array_equal(resized(images, preprocess, orientations), expected)


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize(("size", "target"), SIZES)
def test_the_pixels_are_pillows(size: tuple[int, int], target: tuple[int, int], interpolation: str) -> None:
    assert_same([noise(*size)], preprocess_of(target, interpolation))


@pytest.mark.parametrize("interpolation", ["BILINEAR", "BICUBIC"])
def test_a_photographs_size_to_a_models(interpolation: str) -> None:
    assert_same([noise(640, 480), noise(427, 640)], preprocess_of((448, 448), interpolation))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_each_orientation(orientation: int) -> None:
    assert_same([noise(61, 37)], preprocess_of((32, 24)), [orientation])


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("size", [(60, 40), (40, 60), (20, 20), (9, 1000), (1000, 9), (250, 251)])
def test_the_short_side_and_a_crop(size: tuple[int, int], interpolation: str) -> None:
    preprocess = Preprocess(resize_short=32, crop=(28, 25), backend="pil", interpolation=interpolation)
    assert_same([noise(*size)], preprocess)


def test_a_crop_of_a_fixed_size() -> None:
    preprocess = Preprocess(size=(50, 40), crop=(33, 40), backend="pil", interpolation="BICUBIC")
    assert_same([noise(80, 70), noise(50, 40)], preprocess)


def test_a_batch_of_many_sizes() -> None:
    random = np.random.default_rng(5)
    images = [noise(*random.integers(1, 200, 2), seed=number) for number in range(40)]
    assert_same(images, preprocess_of((31, 45)), [int(turn) for turn in random.integers(1, 9, len(images))])


def test_rows_of_the_source_may_be_padded() -> None:
    image, preprocess = noise(50, 30), preprocess_of((20, 20))
    np.testing.assert_array_equal(
        resized([image], preprocess, [6], row_padding=14)[0], preprocess.to_pixels(upright(image, 6))
    )


def test_no_images() -> None:
    card = HostCard()
    resize(card, [], "BILINEAR", card.empty((0, 8, 8, 3), np.uint8))


sides = st.one_of(st.integers(1, 24), st.integers(1, 400))


@st.composite
def cases(draw: st.DrawFn) -> tuple[tuple[int, int], Preprocess, int]:
    width, height = draw(sides), draw(sides)
    interpolation = draw(st.sampled_from(["BILINEAR", "BICUBIC", *FILTERS]))
    target = draw(st.tuples(st.integers(1, 90), st.integers(1, 90)))
    is_cropped, is_short = draw(st.booleans()), draw(st.booleans())
    if is_short:
        short = draw(st.integers(1, 60))
        crop = draw(st.tuples(st.integers(1, short), st.integers(1, short)))
        preprocess = Preprocess(resize_short=short, crop=crop, backend="pil", interpolation=interpolation)
    else:
        crop = draw(st.tuples(st.integers(1, target[0]), st.integers(1, target[1]))) if is_cropped else None
        preprocess = Preprocess(size=target, crop=crop, backend="pil", interpolation=interpolation)
    return (width, height), preprocess, draw(st.integers(1, 8))


@settings(max_examples=150, deadline=None)
@given(cases())
def test_any_size_and_any_preprocessing(case: tuple[tuple[int, int], Preprocess, int]) -> None:
    size, preprocess, orientation = case
    assert_same([noise(*size)], preprocess, [orientation])


@pytest.mark.slow
@settings(max_examples=6000, deadline=None)
@given(cases())
def test_thousands_of_sizes(case: tuple[tuple[int, int], Preprocess, int]) -> None:
    size, preprocess, orientation = case
    assert_same([noise(*size)], preprocess, [orientation])


@pytest.mark.slow
@pytest.mark.parametrize("interpolation", ["BILINEAR", "BICUBIC"])
@pytest.mark.parametrize("target", [224, 384, 448])
def test_each_side_of_common_photographs(target: int, interpolation: str) -> None:
    """Every width to a model's width, in strips two pixels high: the same arithmetic, a thousand sizes in seconds."""
    preprocess = Preprocess(size=(target, 2), backend="pil", interpolation=interpolation)
    for first in range(1, 2049, 64):
        assert_same([noise(width, 2, seed=1) for width in range(first, first + 64)], preprocess)


@pytest.mark.slow
def test_huge_ratios() -> None:
    for size in [(65_000, 1), (1, 65_000), (20_000, 2), (40_000, 700), (12_000, 9_000)]:
        for interpolation in ("BILINEAR", "BICUBIC"):
            assert_same([noise(*size)], preprocess_of((448, 448), interpolation))


def test_what_the_card_leaves_to_the_cpu() -> None:
    assert unsupported_reason(preprocess_of((8, 8))) is None
    reason = unsupported_reason(Preprocess(size=(8, 8), backend="cv2", interpolation="LINEAR"))
    assert reason is not None and "OpenCV" in reason and "LINEAR" in reason
    too_narrow = Preprocess(resize_short=448, crop=(448, 448), backend="pil", interpolation="BILINEAR")
    assert geometry(too_narrow, 2, 60_000) is None
