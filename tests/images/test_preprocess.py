"""Preprocessing by PaddleX's rules, with Pillow or OpenCV as the model says; and which models get scaled JPEGs."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from mlcls_ray.errors import ImageError, Status
from mlcls_ray.images.preprocess import Preprocess, to_tensor
from tests.conftest import picture

IMAGE = np.asarray(picture(100, 60))


def test_fixed_size_by_pillow_bilinear() -> None:
    pixels = Preprocess(size=(32, 24), backend="pil", interpolation="BILINEAR").to_pixels(IMAGE)
    expected = Image.fromarray(IMAGE).resize((32, 24), Image.Resampling.BILINEAR)
    assert np.array_equal(pixels, np.asarray(expected))


def test_fixed_size_by_opencv_linear() -> None:
    pixels = Preprocess(size=(32, 24), backend="cv2", interpolation="LINEAR").to_pixels(IMAGE)
    assert np.array_equal(pixels, cv2.resize(IMAGE, (32, 24), interpolation=cv2.INTER_LINEAR))


def test_an_image_of_the_right_size_is_not_copied() -> None:
    assert Preprocess(size=(100, 60)).to_pixels(IMAGE) is IMAGE


def test_short_side_then_centre_crop() -> None:
    """PaddleX: ResizeByShort rounds both sides, Crop takes (w - cw) // 2 from the left."""
    pixels = Preprocess(resize_short=30, crop=(24, 24), backend="cv2", interpolation="AREA").to_pixels(IMAGE)
    resized = cv2.resize(IMAGE, (50, 30), interpolation=cv2.INTER_AREA)
    assert np.array_equal(pixels, resized[3:27, 13:37])


def test_an_extreme_side_ratio_is_too_large() -> None:
    with pytest.raises(ImageError) as caught:
        Preprocess(resize_short=256, crop=(224, 224)).to_pixels(np.zeros((1, 2000, 3), np.uint8))
    assert caught.value.status == Status.TOO_LARGE


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "exactly one of size and resize_short"),
        ({"size": (8, 8), "resize_short": 8}, "exactly one"),
        ({"resize_short": 8}, "needs a CropImage"),
        ({"resize_short": 8, "crop": (9, 9)}, "larger than the resized image"),
        ({"size": (8, 8), "backend": "cv2", "interpolation": "BILINEAR"}, "does not exist for backend 'cv2'"),
        ({"size": (8, 8), "std": (0.0, 1.0, 1.0)}, "holds a zero"),
        ({"size": (8, 8), "backend": "tf"}, "backend"),
        ({"size": (0, 8)}, "greater than 0"),
    ],
)
def test_wrong_values_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Preprocess.model_validate(values)


@pytest.mark.parametrize(
    ("preprocess", "expected"),
    [
        (Preprocess(size=(224, 192), backend="pil", interpolation="BILINEAR"), (448, 384)),
        (Preprocess(size=(224, 192), backend="cv2"), None),  # its LINEAR does not average when it shrinks an image
        (Preprocess(resize_short=256, crop=(224, 224), backend="pil", interpolation="BILINEAR"), None),
    ],
)
def test_only_an_averaging_resize_to_a_fixed_size_takes_scaled_jpegs(
    preprocess: Preprocess, expected: tuple[int, int] | None
) -> None:
    assert preprocess.min_decode_size == expected


def test_a_tensor_is_the_scaled_pixels_minus_mean_over_std() -> None:
    preprocess = Preprocess(size=(100, 60), mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    tensor = to_tensor(np.stack([IMAGE, IMAGE[::-1]]), preprocess)
    assert tensor.shape == (2, 3, 60, 100)
    assert tensor.dtype == np.float32
    expected = (IMAGE / 255 - [0.1, 0.2, 0.3]) / [0.5, 0.6, 0.7]
    assert np.allclose(tensor[0].transpose(1, 2, 0), expected, atol=1e-5)
    assert np.array_equal(tensor[1], tensor[0][:, ::-1])
