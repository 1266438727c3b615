"""HTTP to public addresses only, for URLs that out_of_range give: the address that is checked is the one that is connected to."""

from __future__ import annotations

import ipaddress
import socket

import httpx

from mlcls_ray.errors import ImageError, Status


class PublicTransport(httpx.HTTPTransport):
    """Resolves the host itself and connects to what it has checked, so that a name cannot mean another address a moment later.

    Connections are not kept: one to an address must not serve another host's name.
    """

    def __init__(self) -> None:
        super().__init__(trust_env=False, limits=httpx.Limits(max_keepalive_connections=0))

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        host = request.url.host
        # A request of its own: redirects are resolved against the one that was asked for.
        pinned = httpx.Request(
            request.method,
            request.url.copy_with(host=_public_address(host, request.url.port or 443)),
            headers=request.headers,
            stream=request.stream,
            extensions={**request.extensions, "sni_hostname": host},
        )
        return super().handle_request(pinned)


def _public_address(host: str, port: int) -> str:
    """An address of the host.

    Raises:
        ImageError: any of its addresses is private, loopback, link-local or otherwise not public; or it has none.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ImageError(Status.MISSING, f"{host}: {getattr(error, 'strerror', None) or error}") from None
    addresses = [str(entry[4][0]) for entry in found]
    for text in addresses:
        address = ipaddress.ip_address(text.partition("%")[0])
        mapped = getattr(address, "ipv4_mapped", None) or address
        if not mapped.is_global or mapped.is_multicast:
            raise ImageError(Status.DENIED, f"{host} is not a public address; refused")
    return addresses[0]
