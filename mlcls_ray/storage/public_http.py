"""HTTP to public addresses only, for URLs that strangers send. The address that is checked is the one that is connected to."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable

import httpx

from mlcls_ray.errors import ImageError, Status


def public_address(host: str, port: int) -> str:
    """Look up an address of the host.

    Raises:
        ImageError: `denied`: any of its addresses is private, loopback, link-local or otherwise not public; or `missing`: it
            has none.
    """
    try:
        entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ImageError(Status.MISSING, f"{host}: {getattr(error, 'strerror', None) or error}") from None
    addresses = [str(socket_address[0]) for *_, socket_address in entries]
    for text in addresses:
        address = ipaddress.ip_address(text.partition("%")[0])
        mapped = getattr(address, "ipv4_mapped", None) or address
        if not mapped.is_global or mapped.is_multicast:
            raise ImageError(Status.DENIED, f"{host} is not a public address; refused")
    return addresses[0]


class PublicTransport(httpx.HTTPTransport):
    """Resolves the host itself and connects to the address that it has checked.

    If the connection looked the name up again, it could get another address. Connections are not kept open: one to an
    address must not serve another host's name.
    """

    def __init__(self, look_up: Callable[[str, int], str] = public_address) -> None:
        super().__init__(trust_env=False, limits=httpx.Limits(max_keepalive_connections=0))
        self.look_up = look_up

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        host = request.url.host
        # A copy: httpx resolves redirects against the URL of the original.
        pinned = httpx.Request(
            request.method,
            request.url.copy_with(host=self.look_up(host, request.url.port or 443)),
            headers=request.headers,
            stream=request.stream,
            extensions={**request.extensions, "sni_hostname": host},
        )
        return super().handle_request(pinned)
