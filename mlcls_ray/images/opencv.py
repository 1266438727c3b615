"""OpenCV's decoder, for the formats where its pixels are the reference and no faster decoder gives the same."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from mlcls_ray.errors import ImageError, Status


def imdecode(image_bytes: bytes | bytearray) -> np.ndarray | None:
    """Decode to RGB uint8 [H, W, 3] as it is stored, not turned; None if OpenCV does not read it.

    Raises:
        ImageError: `too_large`: there is not enough memory.
    """
    cv2 = _cv2()
    try:
        image = cv2.imdecode(np.frombuffer(image_bytes, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise ImageError(Status.TOO_LARGE, "not enough memory to decode it") from None
        return None  # a side beyond its own limits, for one
    return None if image is None else np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image))


@lru_cache
def _cv2() -> Any:
    """Load OpenCV when the first such image comes. It stays silent: what it would print holds text of strangers' files."""
    import cv2

    cv2.setLogLevel(0)
    return cv2
