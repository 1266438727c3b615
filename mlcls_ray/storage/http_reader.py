"""Read http(s) URLs: bounded in size and in time, and never from a cloud's metadata service."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mlcls_ray.errors import ImageError, Status
from mlcls_ray.logs import hide_library_urls
from mlcls_ray.storage.fetched import Fetched, http_status, too_large

if TYPE_CHECKING:
    import httpx

    from mlcls_ray.storage.deadline import Deadline

MAX_REDIRECTS = 5
USER_AGENT = "mlcls-ray"
METADATA_ADDRESSES = frozenset({"100.100.100.200", "192.0.0.192", "fd00:ec2::254"})
"""The metadata services that have no link-local address: Alibaba, Oracle, AWS over IPv6."""


class HttpReader:
    """Reads URLs, and keeps connections open. `read` may be called from several threads."""

    def __init__(
        self,
        max_bytes: int,
        timeout_s: float,
        is_public_only: bool = False,
        transport: httpx.BaseTransport | None = None,
        refused_addresses: frozenset[str] = METADATA_ADDRESSES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make a reader; it connects when the first URL is read.

        `timeout_s`: for one download in all, with its redirects. `is_public_only`: see `public_http`.
        `transport`: what sends the requests; None: the network. `clock`: returns seconds.
        """
        self.max_bytes = max_bytes
        self.timeout_s = timeout_s
        self.is_public_only = is_public_only
        self.refused_addresses = refused_addresses
        self._transport = transport
        self._clock = clock
        self._connections: tuple[httpx.Client, Deadline] | None = None

    def read(self, url: str) -> Fetched:
        """Download a URL, once.

        Raises:
            ImageError: `missing`, `denied`, `timeout`, `http_4xx`, `http_5xx`, `too_large` or `unsupported`.
        """
        import httpx  # it takes a while to load; most workers never meet a URL

        if self._connections is None:
            self._connections = self._connect()
        client, deadline = self._connections
        chunks: list[bytes] = []
        received = 0
        try:
            urlsplit(url).port  # noqa: B018 (raises ValueError for a port beyond 65535, of which httpx would ask another one)
            with deadline.after(self.timeout_s), client.stream("GET", url) as response:
                if response.status_code >= 400:
                    status = http_status(response.status_code)
                    raise ImageError(status, f"HTTP {response.status_code}", _retry_after_s(response))
                announced = response.headers.get("Content-Length", "")
                if announced.isdecimal() and int(announced) > self.max_bytes:
                    raise too_large(int(announced), self.max_bytes)
                for chunk in response.iter_bytes():
                    received += len(chunk)
                    chunks.append(chunk)
                    if received > self.max_bytes:
                        raise too_large(None, self.max_bytes)
                    if deadline.is_over:
                        raise ImageError(Status.TIMEOUT, f"not complete after {self.timeout_s:g} s")
                etag = response.headers.get("ETag", "").strip('"') or None
                return Fetched(b"".join(chunks), _last_modified(response), etag)
        except httpx.TimeoutException as error:
            raise ImageError(Status.TIMEOUT, f"{type(error).__name__} after {self.timeout_s:g} s") from None
        except httpx.TooManyRedirects:
            raise ImageError(Status.HTTP_4XX, f"more than {MAX_REDIRECTS} redirects") from None
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            raise ImageError(Status.UNSUPPORTED, str(error)) from None
        except httpx.TransportError as error:
            raise ImageError(Status.TIMEOUT, f"{type(error).__name__}: {error}") from None
        except httpx.DecodingError as error:  # the body is not compressed in the way that its header says
            raise ImageError(Status.CORRUPT, f"{type(error).__name__}: {error}") from None
        except (ValueError, httpx.HTTPError) as error:  # a host such as `a..b` or `xn--a`, which cannot be encoded
            raise ImageError(Status.UNSUPPORTED, f"not a valid URL: {type(error).__name__}: {error}") from None

    def _connect(self) -> tuple[httpx.Client, Deadline]:
        import httpx

        from mlcls_ray.storage.deadline import Deadline, keep_deadline
        from mlcls_ray.storage.public_http import PublicTransport

        hide_library_urls()
        client = httpx.Client(
            transport=self._transport or (PublicTransport() if self.is_public_only else None),
            trust_env=not self.is_public_only,  # a proxy would look the names up itself
            follow_redirects=True,
            max_redirects=MAX_REDIRECTS,
            timeout=self.timeout_s,
            headers={"User-Agent": USER_AGENT},
            event_hooks={"request": [self._check_named_address], "response": [self._check_peer_address]},
            limits=httpx.Limits(max_connections=None),
        )
        deadline = Deadline(self._clock)
        keep_deadline(client, deadline)
        return client, deadline

    def _check_named_address(self, request: httpx.Request) -> None:
        """Refuse a URL, or a redirect, that spells a forbidden address, before anything is sent."""
        self._check_address(request.url.host)

    def _check_peer_address(self, response: httpx.Response) -> None:
        """Refuse a name that leads to a forbidden address, before anything is read.

        The connection is asked for its address: another look-up of the name might have another answer.
        """
        stream = response.extensions.get("network_stream")
        peer = stream.get_extra_info("server_addr") if stream is not None else None
        if peer:
            self._check_address(peer[0])

    def _check_address(self, host: str) -> None:
        try:
            address = ipaddress.ip_address(host.strip("[]"))
        except ValueError:
            return  # a name
        mapped = getattr(address, "ipv4_mapped", None) or address
        if mapped.is_link_local or str(mapped) in self.refused_addresses:
            raise ImageError(Status.DENIED, f"{host} is a link-local or metadata address; refused")


def _retry_after_s(response: httpx.Response) -> float:
    """Read Retry-After, in seconds. Its other form, a date, is ignored: the two clocks may differ."""
    value = response.headers.get("Retry-After", "")
    return float(value) if value.isdecimal() else 0.0


def _last_modified(response: httpx.Response) -> datetime | None:
    try:
        return parsedate_to_datetime(response.headers["Last-Modified"]).astimezone(timezone.utc)
    except (KeyError, ValueError, TypeError):
        return None
