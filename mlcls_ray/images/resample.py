"""Pillow's bilinear and bicubic resize of RGB images, compiled by Numba for the processor at hand: the same bytes, several times sooner.

As in Pillow, weights are integers of 22 bits, and there is one pass along each axis, the first result rounded to 8 bits
(src/libImaging/Resample.c). A pass here adds whole lines, which a compiler turns into SIMD; columns become lines by transposing.
Importing this module takes a second, and some seconds on a machine where it was not compiled before.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numba
import numpy as np

WEIGHT_BITS = 22
STRIP_BYTES, STRIP_LINES = 1 << 18, 16
"""The part of an image that goes through the first pass at once: so many bytes, which stay in the processor's cache, and no fewer lines."""


@lru_cache(64)  # images of one size are many
@numba.njit("(int64, int64, int64, int64, boolean)", nogil=True, cache=True, error_model="numpy")
def weigh(size, resized, start, length, is_cubic):  # type: ignore[no-untyped-def]  # compiled from the signature above
    """Compute what `length` positions from `start` on, of `size` samples that are resized to `resized`, are made of.

    Returns:
        The first sample of each position, its number of samples, int32 [length], and their weights, int32 [length, samples at most].
    """
    scale = size / resized
    filter_scale = max(scale, 1.0)
    narrow = 1.0 / filter_scale
    reach = (2.0 if is_cubic else 1.0) * filter_scale
    firsts, counts = np.empty(length, np.int32), np.empty(length, np.int32)
    weights = np.zeros((length, 2 * int(np.ceil(reach)) + 1), np.int32)
    shares = np.empty(weights.shape[1])
    for at in range(length):
        center = (start + at + 0.5) * scale
        first = max(int(center - reach + 0.5), 0)
        count = min(int(center + reach + 0.5), size) - first
        total = 0.0
        for i in range(count):
            x = abs((first + i - center + 0.5) * narrow)
            if not is_cubic:
                shares[i] = 1.0 - x if x < 1.0 else 0.0
            elif x < 1.0:
                shares[i] = (1.5 * x - 2.5) * x * x + 1
            else:
                shares[i] = (((x - 5) * x + 8) * x - 4) * -0.5 if x < 2.0 else 0.0
            total += shares[i]
        for i in range(count):
            share = (shares[i] / total if total != 0.0 else shares[i]) * (1 << WEIGHT_BITS)
            weights[at, i] = int(share - 0.5 if share < 0 else share + 0.5)
        firsts[at], counts[at] = first, count
    return firsts, counts, weights


@numba.njit("(uint8[:,::1], int32[::1], int32[::1], int32[:,::1], uint8[:,::1])", nogil=True, cache=True)
def blend(lines, firsts, counts, weights, out):  # type: ignore[no-untyped-def]
    """Make each line of `out` of the lines that `weigh` chose, rounded to 8 bits."""
    sums = np.empty(lines.shape[1], np.int32)
    for at in range(len(out)):
        sums[:] = 1 << (WEIGHT_BITS - 1)
        for i in range(counts[at]):
            line, weight = lines[firsts[at] + i], weights[at, i]
            for byte in range(len(sums)):
                sums[byte] += np.int32(line[byte]) * weight
        for byte in range(len(sums)):
            out[at, byte] = min(max(sums[byte] >> WEIGHT_BITS, 0), 255)


def resample(
    image: np.ndarray, size: tuple[int, int], start: tuple[int, int], is_cubic: bool, out: np.ndarray
) -> np.ndarray:
    """Resize uint8 [H, W, 3] to `size`, and write the part from `start` on, both (width, height), into `out`, uint8 [h, w, 3]."""
    (height, width), (out_height, out_width) = image.shape[:2], out.shape[:2]
    columns = weigh(width, size[0], start[0], out_width, is_cubic)
    firsts, counts, weights = weigh(height, size[1], start[1], out_height, is_cubic)
    top, bottom = firsts[0], firsts[-1] + counts[-1]
    between = np.empty((bottom - top, out_width, 3), np.uint8)
    step = max(STRIP_BYTES // (3 * width), STRIP_LINES)
    for line in range(top, bottom, step):
        strip = cv2.transpose(image[line : min(line + step, bottom)])
        narrow = np.empty((out_width, strip.shape[1], 3), np.uint8)
        blend(strip.reshape(width, -1), *columns, narrow.reshape(out_width, -1))
        cv2.transpose(narrow, dst=between[line - top : line - top + step])
    blend(between.reshape(bottom - top, -1), firsts - top, counts, weights, out.reshape(out_height, -1))
    return out
