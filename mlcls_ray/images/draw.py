"""Annotated images: the photograph untouched, and under it a strip of label chips with their scores."""

from __future__ import annotations

import colorsys
import hashlib
import io
import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import numpy as np
from PIL import Image, ImageDraw, ImageFont

FONTS = Path(__file__).parent / "fonts"
LATIN, CJK = "DejaVuSans.ttf", "DroidSansFallbackFull.ttf"
FIRST_CJK = 0x2E80
"""From this code point on the second font is used: it has the Chinese and Japanese that the first one lacks."""

FONT_SHARE = 0.032
"""Text height as a share of the image's geometric mean side."""
SMALLEST_FONT, LARGEST_FONT = 12, 160
STRIP_COLOR, TEXT_COLOR, MUTED_COLOR = (24, 26, 31), (255, 255, 255), (160, 165, 175)
NARROWEST = 10
"""The strip's least width in text heights; a narrower image gets a margin on its right."""
JPEG_QUALITY = 92
LARGEST_SIDE = 60_000
"""JPEG ends at 65,535 pixels a side; the strip needs room too."""


class Chip(NamedTuple):
    """A label to draw: class id (decides the colour), name, score 0..1."""

    class_id: int
    name: str
    score: float


def annotate(image: np.ndarray, chips: Sequence[Chip]) -> bytes:
    """What `draw` draws, as a JPEG of quality 92."""
    out = io.BytesIO()
    draw(image, chips).save(out, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return out.getvalue()


def draw(image: np.ndarray, chips: Sequence[Chip]) -> Image.Image:
    """Draw `chips` (best first) under uint8 [H, W, 3].

    Long names are cut with an ellipsis; rows wrap; without a label the strip says so.
    """
    picture = Image.fromarray(image)
    if max(picture.size) > LARGEST_SIDE:
        picture.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    width, height = picture.size
    size = int(min(max(FONT_SHARE * (width * height) ** 0.5, SMALLEST_FONT), LARGEST_FONT))
    margin, pad = max(size // 2, 4), max(size // 3, 3)
    row_height = size + 2 * pad + margin
    strip_width = max(width, NARROWEST * size)
    placed = _place(chips, size, strip_width - 2 * margin, pad, margin)
    rows = max((row for _, row, _, _ in placed), default=0) + 1
    canvas = Image.new("RGB", (strip_width, height + rows * row_height + margin), STRIP_COLOR)
    canvas.paste(picture, (0, 0))
    pen = ImageDraw.Draw(canvas)
    for left, row, text, chip in placed:
        top = height + margin + row * row_height
        x = margin + left
        right = x + _text_width(text, size) + 2 * pad
        pen.rounded_rectangle((x, top, right, top + size + 2 * pad), radius=pad, fill=_color(chip.class_id))
        _draw_text(pen, (x + pad, top + pad), text, size, TEXT_COLOR)
    if not placed:
        _draw_text(pen, (margin, height + margin + pad), "no label", size, MUTED_COLOR)
    return canvas


def annotated_name(uri: str) -> str:
    """The file name for a uri: its own readable stem, and a hash of the whole uri so that two never collide."""
    base = unquote(uri.partition("?")[0].rstrip("/").rpartition("/")[2])
    stem = re.sub(r"[^\w.-]+", "_", base.rpartition(".")[0] or base).strip("._")[:60]
    digest = hashlib.blake2b(uri.encode("utf-8"), digest_size=8).hexdigest()
    return f"{stem}-{digest}.jpg" if stem else f"{digest}.jpg"


def _place(chips: Sequence[Chip], size: int, width: int, pad: int, gap: int) -> list[tuple[int, int, str, Chip]]:
    """(left, row, text, chip) of each chip, wrapped to `width`."""
    placed = []
    left = row = 0
    for chip in chips:
        score = f" {chip.score:.2f}"
        text = _shorten(chip.name, size, width - 2 * pad - _text_width(score, size)) + score
        needed = _text_width(text, size) + 2 * pad
        if left and left + needed > width:
            left, row = 0, row + 1
        placed.append((left, row, text, chip))
        left += needed + gap
    return placed


def _shorten(text: str, size: int, width: int) -> str:
    if _text_width(text, size) <= width:
        return text
    while text and _text_width(text + "…", size) > width:
        text = text[:-1]
    return text + "…"


def _runs(text: str) -> list[tuple[str, str]]:
    """The text in pieces of one font each: (font file, piece)."""
    return [
        (CJK if is_cjk else LATIN, "".join(characters))
        for is_cjk, characters in groupby(text, key=lambda character: ord(character) >= FIRST_CJK)
    ]


def _text_width(text: str, size: int) -> int:
    return round(sum(_font(name, size).getlength(piece) for name, piece in _runs(text)))


def _draw_text(
    pen: ImageDraw.ImageDraw, corner: tuple[int, int], text: str, size: int, color: tuple[int, int, int]
) -> None:
    x, y = float(corner[0]), corner[1] + size * 0.9
    for name, piece in _runs(text):
        pen.text((x, y), piece, font=_font(name, size), fill=color, anchor="ls")
        x += _font(name, size).getlength(piece)


@lru_cache(maxsize=64)
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(FONTS / name), size)


def _color(class_id: int) -> tuple[int, int, int]:
    """A colour per class, dark enough for white text; neighbours in the vocabulary differ."""
    red, green, blue = colorsys.hls_to_rgb(class_id * 0.618034 % 1.0, 0.36, 0.62)
    return round(red * 255), round(green * 255), round(blue * 255)
