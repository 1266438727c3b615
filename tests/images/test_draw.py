"""Annotated images: an unchanged photograph, legible labels, unique file names."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from mlcls_ray.images.draw import Chip, _font, _runs, annotate, annotated_name
from tests.conftest import picture

CHIPS = [Chip(0, "person", 0.98), Chip(16, "猫と犬", 0.7), Chip(60, "Straßenbahn", 0.5), Chip(2, "x" * 80, 0.4)]


def drawn(width: int, height: int, chips: list[Chip]) -> tuple[np.ndarray, np.ndarray]:
    """Annotate an image and return its two parts: the photograph and the strip below it."""
    image = np.asarray(picture(width, height))
    result = np.asarray(Image.open(io.BytesIO(annotate(image, chips))))
    assert result.shape[1] == max(width, 120)
    return result[:height, :width], result[height:]


@pytest.mark.parametrize(("width", "height"), [(40, 30), (200, 150), (640, 480), (2400, 1600), (30, 900), (900, 30)])
def test_the_photograph_is_unchanged_and_the_strip_has_text(width: int, height: int) -> None:
    photograph, strip = drawn(width, height, CHIPS)
    # Only JPEG's loss; blocks at the edge of the strip may differ more.
    assert np.abs(photograph[:-16, :-16].astype(int) - np.asarray(picture(width, height))[:-16, :-16]).mean() < 3
    white = (strip.min(axis=2) > 200).sum()
    assert white > 60, "white text on the chips"


@pytest.mark.parametrize(("width", "smallest", "largest"), [(200, 12, 20), (6000, 100, 170)])
def test_text_grows_with_the_image(width: int, smallest: int, largest: int) -> None:
    _, strip = drawn(width, width, [Chip(0, "H", 0.5)])
    rows = np.flatnonzero((strip.min(axis=2) > 180).any(axis=1))
    assert smallest * 0.5 <= rows[-1] - rows[0] + 1 <= largest


def test_an_image_without_labels_gets_a_strip_that_says_so() -> None:
    _, strip = drawn(300, 200, [])
    assert (strip.max(axis=2) > 120).any()


def test_each_character_has_a_glyph() -> None:
    """A font draws a character that it lacks as the same box as a code point that no font has."""
    for name, piece in _runs("person ßéñçØ Ελλ Жук 猫と犬 汽车 ー"):
        missing = bytes(_font(name, 40).getmask("\U0010fffd"))
        for character in piece.replace(" ", ""):
            assert bytes(_font(name, 40).getmask(character)) != missing, character


def test_names_follow_the_uri_and_never_collide() -> None:
    uris = [
        "/a/photo.jpg", "/b/photo.jpg", "/a/photo.png", "s3://bucket/photo.jpg", "https://host/photo.jpg?size=1",
        "https://host/photo.jpg?size=2", "/a/ph oto.jpg", "/a/ph_oto.jpg", "/a/写真.jpg", "/a/.jpg", "/a/" + "n" * 250,
    ]  # fmt: skip
    names = [annotated_name(uri) for uri in uris]
    assert len(set(names)) == len(uris)
    assert names[0].startswith("photo-")
    assert names[8].startswith("写真-")
    assert all(len(name.encode()) < 255 and "/" not in name and " " not in name for name in names)
