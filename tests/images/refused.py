"""Bytes that `decode` refuses."""

from __future__ import annotations

import pytest

from mlcls_ray.errors import ImageError, Status
from mlcls_ray.images.decode import decode


def status_of(data: bytes) -> Status:
    """Return the status of an image that cannot be decoded. Its message is not empty."""
    with pytest.raises(ImageError) as caught:
        decode(data)
    assert str(caught.value)
    return caught.value.status
