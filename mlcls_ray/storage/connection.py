"""Connections that fail: what is tried again, and what is said when that did not help.

The S3 filesystem tries each of its requests again by itself (see `open_filesystem`). This is for what it leaves out.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import tenacity

from mlcls_ray.errors import MlclsError

Result = TypeVar("Result")
ATTEMPTS = 4
LONGEST_WAIT_S = 10.0


def is_connection_failure(error: BaseException) -> bool:
    """Tell whether an error is that of a lost connection, an answer that was cut, or a server that does not answer."""
    if isinstance(error, MlclsError):
        return False
    import aiohttp  # they take a while to load; most jobs meet no such error
    import botocore.exceptions
    import httpx

    kinds = (
        ConnectionError, TimeoutError, aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, aiohttp.ServerTimeoutError,
        botocore.exceptions.HTTPClientError, httpx.TransportError,
    )  # fmt: skip
    return isinstance(error, kinds)


def patiently(call: Callable[[], Result], sleep: Callable[[float], None] = time.sleep) -> Result:
    """Return the result of a call, which is repeated up to ATTEMPTS times where its connection fails. `sleep`: waits, in seconds."""
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(is_connection_failure),
        stop=tenacity.stop_after_attempt(ATTEMPTS),
        wait=tenacity.wait_random_exponential(multiplier=0.5, max=LONGEST_WAIT_S),
        sleep=sleep,
        reraise=True,
    )
    return retrying(call)
