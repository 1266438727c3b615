"""Start the browser's server, on this machine only unless another address is asked for, and say where it is."""

from __future__ import annotations

import contextlib
import secrets
import socket
import sys
import time
from importlib.util import find_spec
from typing import TYPE_CHECKING

from mlcls_ray.errors import UsageError
from mlcls_ray.terminal import print_plain

if TYPE_CHECKING:
    from mlcls_ray.explore.browse.session import Subject

MISSING = "mlcls browse needs the extra 'browse': pip install 'mlcls-ray[browse]'"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
PATIENCE_S = 2
"""Seconds that running requests have when the server stops."""


def check_installed() -> None:
    """Look for the packages of the extra `browse`.

    Raises:
        UsageError: they are not installed.
    """
    if find_spec("starlette") is None or find_spec("uvicorn") is None:
        raise UsageError(MISSING)


def serve(subject: Subject, host: str, port: int) -> None:
    """Serve until Ctrl-C, or SIGTERM where that is like it (`end_on_sigterm`).

    Args:
        subject: What to browse.
        host: Address to listen on.
        port: Port to listen on; 0: any that is free.

    Raises:
        UsageError: the address cannot be listened on, or there is nothing to browse.
        RunError: the index does not fit on the disk for temporary files.
    """
    import uvicorn

    from mlcls_ray.explore.browse.app import make_app
    from mlcls_ray.explore.browse.guard import TOKEN, Guard, own_hosts
    from mlcls_ray.explore.browse.session import Session

    with _listen(host, port) as listener:
        port = listener.getsockname()[1]
        print_plain(f"building the index of {subject.out} …", error=True)
        started = time.monotonic()
        session = Session(subject)
        try:
            print_plain(f"{session.view.index.rows:,} images, in {time.monotonic() - started:.1f} s", error=True)
            if left_out := session.view.index.table.left_out:
                print_plain(f"{left_out:,} images that vanished are left out; --vanished shows them too", error=True)
            token = secrets.token_urlsafe(32)
            app = Guard(make_app(session), token, port, own_hosts(host))
            shown = socket.gethostname() if host in ("0.0.0.0", "::") else host  # noqa: S104
            if host not in LOOPBACK:
                print_plain("others on the network can read this traffic: it is not encrypted", error=True)
            print_plain(f"http://{f'[{shown}]' if ':' in shown else shown}:{port}/?{TOKEN}={token}")
            print_plain("open this address in a browser; Ctrl-C stops it", error=True)
            sys.stdout.flush()
            config = uvicorn.Config(
                app,
                log_level="warning",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                lifespan="off",
                timeout_graceful_shutdown=PATIENCE_S,
            )
            with contextlib.suppress(KeyboardInterrupt):  # uvicorn has stopped, and raises the signal again
                uvicorn.Server(config).run(sockets=[listener])
        finally:
            session.close()


def _listen(host: str, port: int) -> socket.socket:
    """Listen on an address.

    Raises:
        UsageError: another program does, or this machine does not have the address.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise UsageError(f"--host {host} --port {port}: {error.strerror}; --port 0 takes any free port") from None
    return listener
