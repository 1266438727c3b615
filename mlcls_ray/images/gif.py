"""Check that a GIF's first frame is whole: Pillow leaves out in silence what its data do not hold."""

from __future__ import annotations

import numpy as np

from mlcls_ray.images.decoded import corrupt

_MAX_CODES = 4096


def check_first_frame(image_bytes: bytes, offset: int, bits: int, is_interlaced: bool, frame: np.ndarray) -> None:
    """Raise `corrupt` if the first frame has fewer pixels than its sides promise.

    Args:
        offset: of the frame's data, behind the byte that holds `bits`.
        bits: of the smallest LZW code.
        frame: the decoded frame's palette indices, [height, width].
    """
    last_row = frame[-1 - len(frame) % 2 if is_interlaced and len(frame) > 1 else -1]
    if (last_row != last_row[-1]).any():
        return  # what was not decoded would be of one colour: the usual image is not read twice
    if _count_pixels(_join_blocks(image_bytes, offset), bits, frame.size) < frame.size:
        raise corrupt("the GIF's first frame ends early")


def _join_blocks(image_bytes: bytes, place: int) -> bytes:
    blocks = []
    while place < len(image_bytes) and image_bytes[place]:
        blocks.append(image_bytes[place + 1 : place + 1 + image_bytes[place]])
        place += 1 + image_bytes[place]
    return b"".join(blocks)


def _count_pixels(data: bytes, bits: int, enough: int) -> int:
    """Count the pixels that LZW codes stand for, up to about `enough`, by the length of each code's string."""
    clear, end = 1 << bits, (1 << bits) + 1
    lengths = [1] * (end + 1)
    width, value, held, pixels, last = bits + 1, 0, 0, 0, 0
    for byte in data:
        value |= byte << held
        held += 8
        while held >= width:
            code = value & ((1 << width) - 1)
            value >>= width
            held -= width
            if code == clear:
                del lengths[end + 1 :]
                width, last = bits + 1, 0
                continue
            if code == end or code > len(lengths) or (code == len(lengths) and not last):
                return pixels
            length = lengths[code] if code < len(lengths) else last + 1
            pixels += length
            if pixels >= enough:
                return pixels
            if last and len(lengths) < _MAX_CODES:
                lengths.append(last + 1)
                if len(lengths) == 1 << width and width < 12:
                    width += 1
            last = length
    return pixels
