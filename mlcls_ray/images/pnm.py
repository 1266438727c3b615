"""Rewrite a PNM whose samples are text (P1, P2, P3) as one with bytes: Pillow parses text in Python, minutes for a large file."""

from __future__ import annotations

import re
import warnings

import numpy as np

from mlcls_ray.images.decoded import check_pixels, corrupt

_PLAIN = re.compile(rb"P[123]\s")
_COMMENT = re.compile(rb"#[^\r\n]*")
_BITMAP = re.compile(rb"P1\s+(\d{1,9})\s+(\d{1,9})\s")
_SAMPLES = re.compile(rb"P[23]\s+(\d{1,9})\s+(\d{1,9})\s+(\d{1,5})\s")


def is_plain(image_bytes: bytes) -> bool:
    """Tell whether the bytes are a PNM whose samples are text. It may have a comment right behind its magic."""
    return _PLAIN.match(image_bytes.replace(b"#", b" ", 1) if image_bytes[2:3] == b"#" else image_bytes) is not None


def to_binary(image_bytes: bytes, max_pixels: int) -> bytes:
    """Rewrite P1, P2 or P3 as P4, P5 or P6.

    Raises:
        ImageError: `too_large` or `corrupt`.
    """
    text = _COMMENT.sub(b" ", image_bytes)
    header = (_BITMAP if text.startswith(b"P1") else _SAMPLES).match(text)
    if header is None:
        raise corrupt("the PNM's header is damaged")
    width, height, *rest = map(int, header.groups())
    check_pixels(width, height, max_pixels)
    body = text[header.end() :]
    if not rest:
        bits = np.frombuffer(body.translate(None, b" \t\r\n\v\f")[: width * height], np.uint8) - ord("0")
        if bits.size < width * height or bits.max() > 1:
            raise corrupt(f"the PNM has fewer than {width * height} bits")
        return b"P4\n%d %d\n" % (width, height) + np.packbits(bits.reshape(height, width), axis=1).tobytes()
    highest = rest[0]
    count = width * height * (3 if text.startswith(b"P3") else 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of text that is no number: an older NumPy ends there
            samples = np.fromstring(body.decode("latin-1"), np.int32, sep=" ")[:count]
    except ValueError:  # NumPy 2.4 raises it
        raise corrupt("the PNM has text that is no number") from None
    if samples.size < count:
        raise corrupt(f"the PNM has {samples.size} samples of {count}")
    if not 0 < highest < 1 << 16 or samples.min() < 0 or samples.max() > highest:
        raise corrupt(f"a sample of the PNM is not in 0..{highest}")
    magic = b"P6" if text.startswith(b"P3") else b"P5"
    return (
        b"%s\n%d %d\n%d\n" % (magic, width, height, highest)
        + samples.astype(">u2" if highest > 255 else "u1").tobytes()
    )
