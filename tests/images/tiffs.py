"""Writes TIFFs of every layout, also those that no library writes: bits × sample format × photometric × planar × compression × order."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

WIDTH, HEIGHT = 21, 10
UINT, INT, FLOAT = 1, 2, 3
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR, LAB = 0, 1, 2, 3, 5, 6, 8
NONE, LZW, DEFLATE, PACKBITS = 1, 5, 8, 32773


class Layout(NamedTuple):
    """How the pixels of a TIFF are stored."""

    bits: int = 8
    kind: int = UINT
    photometric: int = RGB
    samples: int = 3
    planar: int = 1
    compression: int = NONE
    order: str = "<"
    extra: tuple[int, ...] = ()
    tile: int = 0
    color_map_bits: int = 16
    orientation: int = 0


def gradient(layout: Layout) -> np.ndarray:
    """A picture in the whole range of its samples: [H, W, samples] of the type that holds them."""
    across, down = np.linspace(0, 1, WIDTH), np.linspace(0, 1, HEIGHT)[:, None]
    shares = np.stack(
        [across * (sample % 2 == 0) * 0.9 + down * 0.1 + 0 * across for sample in range(layout.samples)], 2
    )
    if layout.kind == FLOAT:
        return shares.astype({16: np.float16, 32: np.float32, 64: np.float64}[layout.bits])
    low = -(1 << (layout.bits - 1)) if layout.kind == INT else 0
    values = np.round(shares * ((1 << layout.bits) - 1)).astype(np.float64) + low
    size = 8 * (1 << max(0, (layout.bits - 1) // 8).bit_length())
    return values.astype(np.dtype(f"{'int' if layout.kind == INT else 'uint'}{size}"))


def write_tiff(layout: Layout, image: np.ndarray | None = None) -> bytes:
    """Write one page."""
    image = gradient(layout) if image is None else image
    height, width, samples = image.shape
    planes = [image[..., sample : sample + 1] for sample in range(samples)] if layout.planar == 2 else [image]
    chunks = []
    for plane in planes:
        if layout.tile:
            side = layout.tile
            padded = np.pad(plane, ((0, -height % side), (0, -width % side), (0, 0)), mode="edge")
            chunks += [
                _pack(padded[top : top + side, left : left + side], layout)
                for top in range(0, height, side)
                for left in range(0, width, side)
            ]
        else:
            chunks += [_pack(plane[:4], layout), _pack(plane[4:8], layout), _pack(plane[8:], layout)]
    fields = [
        (256, "I", (width,)), (257, "I", (height,)), (258, "H", (layout.bits,) * samples), (259, "H", (layout.compression,)),
        (262, "H", (layout.photometric,)), (277, "H", (samples,)), (284, "H", (layout.planar,)), (339, "H", (layout.kind,) * samples),
    ]  # fmt: skip
    if layout.tile:
        fields += [(322, "I", (layout.tile,)), (323, "I", (layout.tile,))]
    else:
        fields.append((278, "I", (4,)))
    if layout.orientation:
        fields.append((274, "H", (layout.orientation,)))
    if layout.extra:
        fields.append((338, "H", layout.extra))
    if layout.photometric == PALETTE:
        ramp = np.linspace(0, (1 << layout.color_map_bits) - 1, 1 << layout.bits).astype(int)
        fields.append((320, "H", (*ramp, *ramp[::-1], *np.roll(ramp, 3))))
    return _assemble(layout.order, fields, chunks, bool(layout.tile))


def _assemble(order: str, fields: list[tuple[int, str, Sequence[int]]], chunks: list[bytes], is_tiled: bool) -> bytes:
    body = b""
    places = []
    for chunk in chunks:
        places.append(8 + len(body))
        body += chunk + b"\0" * (len(chunk) % 2)
    offsets, sizes = (324, 325) if is_tiled else (273, 279)
    fields = sorted([*fields, (offsets, "I", tuple(places)), (sizes, "I", tuple(len(chunk) for chunk in chunks))])
    directory = struct.pack(order + "H", len(fields))
    for tag, kind, values in fields:
        data = struct.pack(f"{order}{len(values)}{kind}", *values)
        if len(data) > 4:
            place = struct.pack(order + "I", 8 + len(body))
            body += data + b"\0" * (len(data) % 2)
        else:
            place = data.ljust(4, b"\0")
        directory += struct.pack(order + "HHI", tag, {"H": 3, "I": 4}[kind], len(values)) + place
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(order + "I", 8 + len(body)) + body + directory + b"\0\0\0\0"


def _pack(chunk: np.ndarray, layout: Layout) -> bytes:
    rows = chunk.reshape(len(chunk), -1)
    if layout.bits in (8, 16, 32, 64):
        data = rows.astype(rows.dtype.newbyteorder(layout.order)).tobytes()
    else:
        each = (rows[..., None].astype(np.uint64) >> np.arange(layout.bits - 1, -1, -1, dtype=np.uint64)) & 1
        data = np.packbits(each.reshape(len(rows), -1).astype(np.uint8), axis=1).tobytes()
    if layout.compression == DEFLATE:
        return zlib.compress(data)
    if layout.compression == PACKBITS:
        stride = len(data) // len(rows)
        lines = [data[start : start + stride] for start in range(0, len(data), stride)]
        pieces = [line[start : start + 128] for line in lines for start in range(0, len(line), 128)]
        return b"".join(bytes([len(piece) - 1]) + piece for piece in pieces)
    return data
