"""Uri → image bytes, with every failure as a status."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import stat
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa
import tenacity

from mlcls_ray.config import S3Options
from mlcls_ray.errors import ImageError, Status, UsageError
from mlcls_ray.storage.inputs.members import Member, MemberReader, parse_member
from mlcls_ray.storage.uris import HTTP, LOCAL, open_filesystem, path_of_uri, scheme_of

if TYPE_CHECKING:
    import httpx

MAX_REDIRECTS = 5
USER_AGENT = "mlcls-ray"
LONGEST_WAIT_S = 30.0
BACKOFF = tenacity.wait_random_exponential(multiplier=0.5, max=LONGEST_WAIT_S)
METADATA_ADDRESSES = frozenset({"100.100.100.200", "192.0.0.192", "fd00:ec2::254"})
"""Of clouds whose metadata service is not link-local: Alibaba, Oracle, AWS over IPv6."""


class Fetched(NamedTuple):
    """Encoded bytes, and what the source said of them (None: nothing)."""

    image_bytes: bytes
    mtime: datetime | None = None
    etag: str | None = None


class Fetcher:
    """Reads uris; keeps the connections of one worker. Its methods may be called from several threads."""

    def __init__(
        self, s3: S3Options, max_bytes: int, timeout_s: float, attempts: int = 1, is_public_only: bool = False
    ) -> None:
        """`is_public_only`: refuse http(s):// uris that lead to private, loopback or other addresses that are not public."""
        self.s3 = s3
        self.is_public_only = is_public_only
        self.max_bytes = max_bytes
        self.timeout_s = timeout_s
        self.retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_is_transient),
            stop=tenacity.stop_after_attempt(attempts),
            wait=_wait,
            reraise=True,
        )
        self._client: httpx.Client | None = None
        self._members = MemberReader()

    def fetch(self, uri: str) -> Fetched:
        """The bytes behind a uri; what is transient is tried again with growing, jittered waits.

        Raises: as `fetch_once`, of the last attempt.
        """
        return self.retrying.copy()(self.fetch_once, uri)

    def fetch_once(self, uri: str) -> Fetched:
        """The bytes behind a uri, by one attempt.

        Raises:
            ImageError: `missing`, `denied`, `timeout`, `http_4xx`, `http_5xx`, `empty`, `too_large` or `unsupported`.
        """
        try:
            scheme = scheme_of(uri)
        except UsageError as error:
            raise ImageError(Status.UNSUPPORTED, str(error)) from None
        member = None if scheme in HTTP else parse_member(uri)
        if member and not (scheme == LOCAL and os.path.lexists(path_of_uri(uri))):  # a file may be called x.tar#y.jpg
            fetched = self._member(member)
        elif scheme == LOCAL:
            fetched = self._local(path_of_uri(uri))
        elif scheme in HTTP:
            fetched = self._http(uri)
        else:
            fetched = self._remote(uri)
        if not fetched.image_bytes:
            raise ImageError(Status.EMPTY, "0 bytes")
        return fetched

    def _too_large(self, size: int | None) -> ImageError:
        known = f"{size} bytes" if size is not None else "more bytes"
        return ImageError(Status.TOO_LARGE, f"{known}; the limit is {self.max_bytes} (max_bytes)")

    def _local(self, path: str) -> Fetched:
        try:
            # O_NONBLOCK: opening a FIFO that nobody writes to would wait for ever.
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode):
                    raise ImageError(Status.UNSUPPORTED, "not a regular file")
                if status.st_size > self.max_bytes:
                    raise self._too_large(status.st_size)
                with open(descriptor, "rb", closefd=False) as stream:
                    data = stream.read(self.max_bytes + 1)
            finally:
                os.close(descriptor)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ImageError(Status.MISSING, str(error.strerror)) from None
        except PermissionError as error:
            raise ImageError(Status.DENIED, str(error.strerror)) from None
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            raise ImageError(Status.MISSING, str(error)) from None
        if len(data) > self.max_bytes:
            raise self._too_large(None)
        return Fetched(data, datetime.fromtimestamp(status.st_mtime_ns // 1000 / 1_000_000, tz=timezone.utc))

    def _http(self, uri: str) -> Fetched:
        import httpx  # only workers that meet a URL pay for loading it

        if self._client is None:
            from mlcls_ray.storage.public_http import PublicTransport

            self._client = httpx.Client(
                transport=PublicTransport() if self.is_public_only else None,
                trust_env=not self.is_public_only,  # a proxy would look the names up itself
                follow_redirects=True,
                max_redirects=MAX_REDIRECTS,
                timeout=self.timeout_s,
                headers={"User-Agent": USER_AGENT},
                event_hooks={"request": [_refuse_named_address], "response": [_refuse_peer_address]},
                limits=httpx.Limits(max_connections=None),
            )
        deadline = time.monotonic() + self.timeout_s
        chunks: list[bytes] = []
        received = 0
        try:
            with self._client.stream("GET", uri) as response:
                if response.status_code >= 400:
                    status = _http_status(response.status_code)
                    raise ImageError(status, f"HTTP {response.status_code}", _retry_after(response))
                announced = response.headers.get("Content-Length", "")
                if announced.isdecimal() and int(announced) > self.max_bytes:
                    raise self._too_large(int(announced))
                for chunk in response.iter_bytes():
                    received += len(chunk)
                    chunks.append(chunk)
                    if received > self.max_bytes:
                        raise self._too_large(None)
                    if time.monotonic() > deadline:
                        raise ImageError(Status.TIMEOUT, f"not complete after {self.timeout_s:g} s")
                return Fetched(
                    b"".join(chunks), _last_modified(response), response.headers.get("ETag", "").strip('"') or None
                )
        except httpx.TimeoutException as error:
            raise ImageError(Status.TIMEOUT, f"{type(error).__name__} after {self.timeout_s:g} s") from None
        except httpx.TooManyRedirects:
            raise ImageError(Status.HTTP_4XX, f"more than {MAX_REDIRECTS} redirects") from None
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            raise ImageError(Status.UNSUPPORTED, str(error)) from None
        except httpx.TransportError as error:
            raise ImageError(Status.TIMEOUT, f"{type(error).__name__}: {error}") from None

    def _remote(self, uri: str) -> Fetched:
        filesystem, path = open_filesystem(uri, self.s3)
        with _errors_as_statuses():
            data = bytes(filesystem.cat_file(path, start=0, end=self.max_bytes + 1))
        if len(data) > self.max_bytes:
            raise self._too_large(None)
        return Fetched(data)

    def _member(self, member: Member) -> Fetched:
        """One image inside a tar or Parquet file."""
        filesystem, path = open_filesystem(member.container, self.s3)
        with _errors_as_statuses():
            return Fetched(self._members.read(filesystem, path, member, self.max_bytes))


@contextlib.contextmanager
def _errors_as_statuses() -> Iterator[None]:
    """What a filesystem raises → ImageError."""
    try:
        yield
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(Status.MISSING, "no such object") from None
    except PermissionError as error:
        raise ImageError(Status.DENIED, str(error)) from None
    except (UsageError, pa.ArrowInvalid) as error:
        raise ImageError(Status.CORRUPT, str(error)) from None
    except Exception as error:  # botocore, aiohttp and others, each with a family of their own
        raise _remote_error(error) from None


def _is_transient(error: BaseException) -> bool:
    return isinstance(error, ImageError) and error.status.is_transient


def _wait(state: tenacity.RetryCallState) -> float:
    """Seconds until the next attempt: exponential with full jitter, but not before the server's own Retry-After."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after_s if isinstance(error, ImageError) else 0.0
    return max(BACKOFF(state), min(asked, LONGEST_WAIT_S))


def _retry_after(response: httpx.Response) -> float:
    """Retry-After in seconds; its other form, a date, is not worth a clock's trust."""
    value = response.headers.get("Retry-After", "")
    return float(value) if value.isdecimal() else 0.0


def _refuse_named_address(request: httpx.Request) -> None:
    """Before anything is sent: a URL, or a redirect, that spells a forbidden address."""
    _refuse_forbidden(request.url.host)


def _refuse_peer_address(response: httpx.Response) -> None:
    """Before anything is read: a name that leads to a forbidden address (checked on the connection, not by another look-up)."""
    stream = response.extensions.get("network_stream")
    peer = stream.get_extra_info("server_addr") if stream is not None else None
    if peer:
        _refuse_forbidden(peer[0])


def _refuse_forbidden(host: str) -> None:
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return  # a name
    mapped = getattr(address, "ipv4_mapped", None) or address
    if mapped.is_link_local or str(mapped) in METADATA_ADDRESSES:
        raise ImageError(Status.DENIED, f"{host} is a link-local or metadata address; refused")


def _http_status(code: int) -> Status:
    if code in (404, 410):
        return Status.MISSING
    if code in (401, 403):
        return Status.DENIED
    return Status.HTTP_5XX if code >= 500 or code == 429 else Status.HTTP_4XX


def _last_modified(response: httpx.Response) -> datetime | None:
    try:
        return parsedate_to_datetime(response.headers["Last-Modified"]).astimezone(timezone.utc)
    except (KeyError, ValueError, TypeError):
        return None


def _remote_error(error: Exception) -> ImageError:
    cause = error.__cause__ or error
    response = getattr(cause, "response", None)
    code = response.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(response, dict) else None
    message = f"{type(cause).__name__}: {cause}"
    if code == 416:  # a range of an empty object
        return ImageError(Status.EMPTY, "0 bytes")
    if code is not None:
        return ImageError(_http_status(int(code)), message)
    if "credentials" in type(cause).__name__.lower():
        return ImageError(Status.DENIED, message)
    return ImageError(Status.TIMEOUT, message)
