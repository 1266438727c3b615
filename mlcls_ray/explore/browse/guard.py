"""The guard: this machine's user may ask, from the page itself. Every request passes here first.

The first URL holds a token, which becomes a cookie that scripts cannot read. A page of another origin cannot use it: it is SameSite,
what changes something needs the right `Origin`, and no answer may be embedded elsewhere (other ports of 127.0.0.1 are the same "site",
so the cookie alone would not do). The `Host` header must name this server, so that no other name can be pointed at it (DNS rebinding).
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import socket
from collections.abc import Collection

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

TOKEN = "token"  # noqa: S105
MAX_BODY_BYTES = 2_000_000
METHODS = ("GET", "HEAD", "POST")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
WELCOME = """<!doctype html><html lang="en"><meta charset="utf-8"><title>mlcls browse</title>
<link rel="icon" href="/static/icon.svg"><meta http-equiv="refresh" content="0;url=/"><p><a href="/">Continue</a></p></html>"""
REFUSED = "This page needs the address that `mlcls browse` printed: it holds a token. Open that address again."


class Guard:
    """An ASGI application in front of another one."""

    def __init__(self, app: ASGIApp, token: str, port: int, hosts: Collection[str]) -> None:
        """Make a guard.

        Args:
            app: What answers the requests that may pass.
            token: The secret of the first URL.
            port: The port of this server.
            hosts: The names and addresses that this server has; "*": any address, and no name but localhost's and the machine's.
        """
        self.app = app
        self.token = token
        self.port = port
        self.hosts = hosts
        self.cookie = f"mlcls_browse_{port}"
        self.session = secrets.token_urlsafe(32)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # no websockets here
            await send({"type": "websocket.close", "code": 1008})
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        request = Request(scope)
        answer = self._answer(request)
        await (answer or self.app)(scope, receive, send_guarded)

    def _answer(self, request: Request) -> Response | None:
        """Answer a request that goes no further: one that is refused, or the first one with the token. None: it may pass."""
        if not self._is_our_host(request.headers.get("host", "")):
            return _refuse(421, "This server has another name.")
        if request.method not in METHODS:
            return _refuse(405, "This method is not known.")
        given = request.query_params.get(TOKEN)
        if request.url.path == "/" and given is not None and _is_equal(given, self.token):
            welcome = HTMLResponse(WELCOME)
            welcome.set_cookie(self.cookie, self.session, httponly=True, samesite="strict", path="/")
            return welcome
        if not _is_equal(request.cookies.get(self.cookie, ""), self.session):
            return _refuse(403, REFUSED)
        site = request.headers.get("sec-fetch-site", "same-origin")
        if site not in ("same-origin", "none") and request.headers.get("sec-fetch-mode") != "navigate":
            return _refuse(403, "Another page may not use this one.")
        return self._refused_post(request) if request.method == "POST" else None

    def _refused_post(self, request: Request) -> Response | None:
        if request.headers.get("origin") != f"http://{request.headers['host']}":
            return _refuse(403, "Another page may not use this one.")
        if request.headers.get("content-type", "").partition(";")[0] != "application/json":
            return _refuse(415, "The body must be JSON.")
        length = request.headers.get("content-length", "")
        if not length.isdecimal():
            return _refuse(411, "The length of the body is missing.")
        return _refuse(413, "The body is too large.") if int(length) > MAX_BODY_BYTES else None

    def _is_our_host(self, header: str) -> bool:
        """Return whether a `Host` header names this server. A browser always sends the port, unless it is 80."""
        host, separator, port = header.rpartition(":")
        if not separator or "]" in port:
            host, port = header, "80"
        if port != str(self.port):
            return False
        name = host.strip("[]").lower()
        return name in self.hosts or ("*" in self.hosts and _is_address(name))


def own_hosts(host: str) -> frozenset[str]:
    """Return the names by which a server that listens on `host` may be called."""
    loopback = {"127.0.0.1", "localhost", "::1"}
    if host in ("0.0.0.0", "::"):  # noqa: S104
        return frozenset({*loopback, "*", socket.gethostname().lower(), socket.getfqdn().lower()})
    return frozenset({*loopback, host.lower()}) if host not in loopback else frozenset(loopback)


def _is_address(name: str) -> bool:
    """Return whether a name is an address: nobody can point that elsewhere."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_equal(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())


def _refuse(status: int, message: str) -> Response:
    return JSONResponse({"error": message}, status)
