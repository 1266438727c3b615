"""A deadline for one download as a whole. httpx bounds each wait only, and a server that sends a byte now and then would never end."""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import httpcore
import httpx


class Deadline(threading.local):
    """The time, on `clock`, at which the download of this thread must end. Each thread has its own."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.end = float("inf")

    @contextlib.contextmanager
    def after(self, seconds: float) -> Iterator[None]:
        """Set the deadline for what this thread does inside."""
        self.end = self.clock() + seconds
        try:
            yield
        finally:
            self.end = float("inf")

    @property
    def is_over(self) -> bool:
        return self.clock() > self.end

    def limit(self, timeout: float | None, error: type[httpcore.TimeoutException]) -> float | None:
        """Shorten the seconds that one wait may take to those that are left. Raises `error` where none are."""
        left = self.end - self.clock()
        if left <= 0:
            raise error("the time for the whole download is over")
        if left == float("inf"):
            return timeout
        return left if timeout is None else min(timeout, left)


class _Stream(httpcore.NetworkStream):
    """A connection, on which each wait ends at the deadline of the thread that waits."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._deadline.limit(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._deadline.limit(timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        limit = self._deadline.limit(timeout, httpcore.ConnectTimeout)
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, limit), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _Backend(httpcore.NetworkBackend):
    """httpcore's connections, with a deadline."""

    def __init__(self, deadline: Deadline) -> None:
        self._backend = httpcore.SyncBackend()
        self._deadline = deadline

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        limit = self._deadline.limit(timeout, httpcore.ConnectTimeout)
        return _Stream(self._backend.connect_tcp(host, port, limit, local_address, socket_options), self._deadline)


def keep_deadline(client: httpx.Client, deadline: Deadline) -> None:
    """Make all connections of a client keep the deadline, also those to the proxies that the environment names.

    httpcore takes a network backend, but httpx does not pass one on. So this reaches into httpx; a test fails where that has no effect.
    """
    for transport in (client._transport, *client._mounts.values()):
        if isinstance(transport, httpx.HTTPTransport):
            transport._pool._network_backend = _Backend(deadline)
