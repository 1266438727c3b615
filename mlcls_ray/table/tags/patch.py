"""Patches: what makes the bytes of before out of those of after, without keeping the former."""

from __future__ import annotations

import base64
import json

MOST_BYTES = 256 * 1024
"""Bytes of a patch that are kept for one file; beyond, keywords are taken out one by one."""
PROBE = 32
"""Length in bytes of a piece that is looked for in the other file: found by chance never."""
STEPS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 512, 2048, 8192, 32768)
"""Distances in bytes from where two files part, at which is tried where they meet again."""
CHUNK = 1 << 16


def make_patch(before: bytes, after: bytes) -> bytes | None:
    """Describe `before` as pieces of `after` and literal bytes; None if that is too large.

    An image in which a library wrote keywords differs in a few places: a length in its head, a block that was inserted.
    """
    pieces: list[list[int] | str] = []
    place, other, literal = 0, 0, 0
    while place < len(before):
        length = _common(before, place, after, other)
        if length:
            pieces.append([other, length])
            place, other = place + length, other + length
        if place == len(before):
            break
        skipped, found = _meet_again(before, place, after, other)
        literal += skipped
        if literal > MOST_BYTES:
            return None
        pieces.append(base64.b64encode(before[place : place + skipped]).decode())
        place, other = place + skipped, found
    patch = json.dumps(pieces, separators=(",", ":")).encode()
    return patch if len(patch) <= 2 * MOST_BYTES else None


def apply_patch(after: bytes, patch: bytes) -> bytes:
    """Return `before`."""
    pieces = json.loads(patch)
    return b"".join(
        base64.b64decode(piece) if isinstance(piece, str) else after[piece[0] : piece[0] + piece[1]] for piece in pieces
    )


def _meet_again(before: bytes, place: int, after: bytes, other: int) -> tuple[int, int]:
    """Return how many bytes to skip in `before` until it goes on as `after`, and where."""
    for step in STEPS:
        probe = before[place + step : place + step + PROBE]
        found = after.find(probe, other) if len(probe) == PROBE else -1
        if found >= 0:
            return step, found
    return min(len(before) - place, STEPS[-1]), other


def _common(first: bytes, at: int, second: bytes, other: int) -> int:
    """Return how many bytes are the same from two places on."""
    length, step = 0, CHUNK
    most = min(len(first) - at, len(second) - other)
    while length < most:
        end = min(step, most - length)
        if first[at + length : at + length + end] == second[other + length : other + length + end]:
            length += end
        elif end == 1:
            break
        else:
            step = max(1, end // 2)
    return length
