"""Annotated images: the unchanged photograph, and below it a strip with the labels and their scores."""

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
"""The first code point that is drawn with the CJK font; the Latin font has no Chinese and Japanese."""

FONT_SHARE = 0.032
"""Text height as a share of the geometric mean of the image's sides."""
MIN_FONT, MAX_FONT = 12, 160
"""Limits of the text height, in pixels."""
STRIP_COLOR, TEXT_COLOR, MUTED_COLOR = (24, 26, 31), (255, 255, 255), (160, 165, 175)
MIN_STRIP_WIDTH = 10
"""The strip's minimum width in text heights; a narrower image gets a margin on its right."""
JPEG_QUALITY = 92
MAX_SIDE = 60_000
"""A larger image is shrunk: a JPEG has at most 65,535 pixels a side, and the strip needs some of them."""


class Chip(NamedTuple):
    """A label to draw. The class id decides the colour; the score is in 0..1."""

    class_id: int
    name: str
    score: float


def annotate(image: np.ndarray, chips: Sequence[Chip]) -> bytes:
    """Draw `chips` (best first) below uint8 [H, W, 3], and encode the result as a JPEG of quality 92."""
    stream = io.BytesIO()
    draw(image, chips).save(stream, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return stream.getvalue()


def draw(image: np.ndarray, chips: Sequence[Chip]) -> Image.Image:
    """Draw `chips` (best first) below uint8 [H, W, 3]. Rows wrap, long names end in an ellipsis, and no chips give "no label"."""
    picture = Image.fromarray(image)
    if max(picture.size) > MAX_SIDE:
        picture.thumbnail((MAX_SIDE, MAX_SIDE))
    width, height = picture.size
    size = int(min(max(FONT_SHARE * (width * height) ** 0.5, MIN_FONT), MAX_FONT))
    margin, pad = max(size // 2, 4), max(size // 3, 3)
    row_height = size + 2 * pad + margin
    strip_width = max(width, MIN_STRIP_WIDTH * size)
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
    """Name the file of a uri: its readable stem, and a hash of the whole uri so that two uris never collide."""
    base = unquote(uri.partition("?")[0].rstrip("/").rpartition("/")[2])
    stem = re.sub(r"[^\w.-]+", "_", base.rpartition(".")[0] or base).strip("._")[:60]
    digest = hashlib.blake2b(uri.encode("utf-8"), digest_size=8).hexdigest()
    return f"{stem}-{digest}.jpg" if stem else f"{digest}.jpg"


def _place(chips: Sequence[Chip], size: int, width: int, pad: int, gap: int) -> list[tuple[int, int, str, Chip]]:
    """Place the chips in rows of at most `width` pixels: (left, row, text, chip) of each."""
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
    """Split text into pieces that one font can draw: (font file, piece)."""
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
    """Choose a class's colour: dark enough for white text, and unlike that of the next class in the vocabulary."""
    red, green, blue = colorsys.hls_to_rgb(class_id * 0.618034 % 1.0, 0.36, 0.62)
    return round(red * 255), round(green * 255), round(blue * 255)
