"""Uri → image bytes, with every failure as a status."""

from __future__ import annotations

import os
import stat
import time
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, NamedTuple

from mlcls_ray.config import S3Options
from mlcls_ray.errors import ImageError, Status, UsageError
from mlcls_ray.storage.uris import HTTP, LOCAL, open_filesystem, path_of_uri, scheme_of

if TYPE_CHECKING:
    import httpx

MAX_REDIRECTS = 5
USER_AGENT = "mlcls-ray"


class Fetched(NamedTuple):
    """Encoded bytes, and what the source said of them (None: nothing)."""

    image_bytes: bytes
    mtime: datetime | None = None
    etag: str | None = None


class Fetcher:
    """Reads uris; keeps the connections of one worker. Its methods may be called from several threads."""

    def __init__(self, s3: S3Options, max_bytes: int, timeout_s: float) -> None:
        self.s3 = s3
        self.max_bytes = max_bytes
        self.timeout_s = timeout_s
        self._client: httpx.Client | None = None

    def fetch(self, uri: str) -> Fetched:
        """The bytes behind a uri.

        Raises:
            ImageError: `missing`, `denied`, `timeout`, `http_4xx`, `http_5xx`, `empty`, `too_large` or `unsupported`.
        """
        try:
            scheme = scheme_of(uri)
        except UsageError as error:
            raise ImageError(Status.UNSUPPORTED, str(error)) from None
        if scheme == LOCAL:
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
            self._client = httpx.Client(
                follow_redirects=True,
                max_redirects=MAX_REDIRECTS,
                timeout=self.timeout_s,
                headers={"User-Agent": USER_AGENT},
                limits=httpx.Limits(max_connections=None),
            )
        deadline = time.monotonic() + self.timeout_s
        chunks: list[bytes] = []
        received = 0
        try:
            with self._client.stream("GET", uri) as response:
                if response.status_code >= 400:
                    raise ImageError(_http_status(response.status_code), f"HTTP {response.status_code}")
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
        try:
            data = bytes(filesystem.cat_file(path, start=0, end=self.max_bytes + 1))
        except FileNotFoundError:
            raise ImageError(Status.MISSING, "no such object") from None
        except PermissionError as error:
            raise ImageError(Status.DENIED, str(error)) from None
        except Exception as error:  # botocore, aiohttp and others, each with a family of their own
            raise _remote_error(error) from None
        if len(data) > self.max_bytes:
            raise self._too_large(None)
        return Fetched(data)


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
