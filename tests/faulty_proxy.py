"""An HTTP proxy before an S3 server that breaks a set share of all requests, each in one of several ways."""

from __future__ import annotations

import contextlib
import http.client
import random
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FAULTS = ("500", "503", "reset", "lost", "stall", "short")
"""Answers of the server's failing or overload; the connection reset before the request went on, and after it was done (the answer is
lost); silence; half of the body."""
CUTS = ("reset", "lost", "short", "fin", "headers")
"""Connections that end: as above; and half of the body, or of the headers, and then an orderly end."""
SLOW_DOWN = b"""<?xml version="1.0" encoding="UTF-8"?><Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"""
STALL_S = 4.0


class FaultyProxy(ThreadingHTTPServer):
    """`share` of all requests fail, by the `faults` in turn; before that, the next ones do as `next_faults` says.

    With `refuses` set, requests that it answers with True get a 403.

    `etags=False` empties the ETag of each answer, as some servers do.
    """

    daemon_threads = True

    def __init__(
        self, upstream: str, share: float, seed: int = 0, faults: Sequence[str] = FAULTS, etags: bool = True
    ) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.upstream = upstream.removeprefix("http://")
        self.share = share
        self.faults = faults
        self.etags = etags
        self.refused_methods: set[str] = set()
        self.refused_path = ""
        self.next_faults: list[str | None] = []
        self.chance = random.Random(seed)
        self.lock = threading.Lock()
        self.injected: Counter[str] = Counter()
        self.requests = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def next_fault(self) -> str | None:
        with self.lock:
            self.requests += 1
            if self.next_faults:
                fault = self.next_faults.pop(0)
            elif self.chance.random() < self.share:
                fault = self.faults[sum(self.injected.values()) % len(self.faults)]
            else:
                fault = None
            if fault is not None:
                self.injected[fault] += 1
            return fault

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that has gone is no news here."""


class Handler(BaseHTTPRequestHandler):
    """One request, passed on or broken."""

    protocol_version = "HTTP/1.1"
    server: FaultyProxy

    def handle_any(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else (self._chunks() if "Transfer-Encoding" in self.headers else None)
        if self.command in self.server.refused_methods and self.server.refused_path in self.path:
            self._answer(403, {}, b"<Error><Code>AccessDenied</Code><Message>read only</Message></Error>")
            return
        fault = self.server.next_fault()
        if fault in ("500", "503"):
            self._answer(int(fault), {}, SLOW_DOWN)
        elif fault == "stall":
            time.sleep(STALL_S)
            self._reset()
        elif fault == "reset":
            self._reset()
        else:
            self._pass_on(body, fault)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = handle_any

    def _chunks(self) -> bytes:
        data = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def _pass_on(self, body: bytes | None, fault: str | None) -> None:
        connection = http.client.HTTPConnection(self.server.upstream, timeout=30)
        try:
            headers = {name: value for name, value in self.headers.items() if name.lower() != "transfer-encoding"}
            connection.request(self.command, self.path, body, headers)  # Host stays: it is signed
            answer = connection.getresponse()
            data = answer.read()
        finally:
            connection.close()
        if fault == "lost":
            self._reset()
            return
        kept = {
            name: value
            for name, value in answer.getheaders()
            if name.lower() not in ("transfer-encoding", "connection")
        }
        if not self.server.etags:
            kept = {name: "" if name.lower() == "etag" else value for name, value in kept.items()}
            data = re.sub(rb"<ETag>[^<]*</ETag>", b"<ETag></ETag>", data)
        self._answer(answer.status, kept, data, fault)

    def _answer(self, status: int, headers: dict[str, str], data: bytes, fault: str | None = None) -> None:
        self.send_response_only(status)
        is_head = self.command == "HEAD"
        for name, value in headers.items():
            if name.lower() != "content-length" or is_head:
                self.send_header(name, value)
        if not is_head:
            self.send_header("Content-Length", str(len(data)))
        if fault == "headers":  # the blank line is missing
            self.flush_headers()
            self.close_connection = True
            return
        self.end_headers()
        if fault in ("short", "fin"):
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
            if fault == "short":
                self._reset()
        elif not is_head:
            self.wfile.write(data)

    def _reset(self) -> None:
        """RST instead of FIN."""
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.wfile.flush()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def log_message(self, *words: object) -> None:
        pass


@contextlib.contextmanager
def faulty_proxy(upstream: str, share: float, **options: object) -> Iterator[FaultyProxy]:
    proxy = FaultyProxy(upstream, share, **options)  # type: ignore[arg-type]
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    try:
        yield proxy
    finally:
        proxy.shutdown()
        proxy.server_close()
