"""Errors of CUDA made into the two kinds that a worker acts on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mlcls_ray.engines.failures import is_device_lost, is_out_of_memory
from mlcls_ray.errors import DeviceLostError, short_message


@contextmanager
def translated(device: str) -> Iterator[None]:
    """Raise CUDA's errors as `MemoryError`, whose message says "out of memory", or `DeviceLostError`; let others through.

    Args:
        device: its name in the messages.
    """
    try:
        yield
    except (DeviceLostError, MemoryError):
        raise
    except Exception as error:
        if is_device_lost(error):
            raise DeviceLostError(f"{device} stopped answering: {short_message(error)}") from error
        if is_out_of_memory(error):
            raise MemoryError(f"{device} is out of memory: {short_message(error)}") from error
        raise
