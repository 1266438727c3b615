"""Read the image bytes behind a uri. Every failure becomes an `ImageError` with a status."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone

import pyarrow as pa
import tenacity

from mlcls_ray.config import FetchOptions
from mlcls_ray.errors import ImageError, Status, UsageError, one_image
from mlcls_ray.storage.fetched import Fetched, http_status, too_large
from mlcls_ray.storage.http_reader import HttpReader
from mlcls_ray.storage.inputs.containers import Container, read_member
from mlcls_ray.storage.inputs.listing import find_container, input_kinds
from mlcls_ray.storage.pages import PageReader, is_document
from mlcls_ray.storage.uris import (
    HTTP,
    LOCAL,
    MemberUri,
    is_local_file,
    open_filesystem,
    parse_member,
    parse_page,
    path_of_uri,
    scheme_of,
)

LONGEST_WAIT_S = 30.0
BACKOFF = tenacity.wait_random_exponential(multiplier=0.5, max=LONGEST_WAIT_S)


class Fetcher:
    """Reads uris, and keeps the connections of one worker. Its methods may be called from several threads."""

    def __init__(
        self, options: FetchOptions, is_public_only: bool = False, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        """Make a reader with the limits of `options`.

        `is_public_only`: refuse http(s):// uris that lead to private, loopback and other addresses that are not public.
        `sleep`: how to wait, in seconds, before the next attempt.
        """
        self.s3 = options.s3
        self.max_bytes = options.max_bytes
        self.retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_is_transient),
            stop=tenacity.stop_after_attempt(options.fetch_attempts),
            wait=_wait_s,
            sleep=sleep,
            reraise=True,
        )
        self._http = HttpReader(options.max_bytes, options.timeout_s, is_public_only)
        self._kinds = input_kinds()
        self._pages = PageReader(lambda uri: self._fetch_once(uri).image_bytes)

    def fetch(self, uri: str) -> Fetched:
        """Read a uri. Transient failures are tried again, with growing random waits.

        Raises:
            ImageError: that of the last attempt, see `fetch_once`.
        """
        return self.retrying.copy()(self.fetch_once, uri)

    def fetch_once(self, uri: str) -> Fetched:
        """Read a uri in one attempt.

        Raises:
            ImageError: `missing`, `denied`, `timeout`, `http_4xx`, `http_5xx`, `empty`, `too_large`, `unsupported`, or
                `corrupt` (the container of the image). Nothing else, whatever the uri is.
        """
        with one_image():
            return self._fetch_once(uri)

    def _fetch_once(self, uri: str) -> Fetched:
        scheme = scheme_of(uri)
        page = parse_page(uri)
        if page and is_document(page.document) and not (scheme == LOCAL and is_local_file(uri)):
            return Fetched(self._pages.read(page))
        member = None if scheme in HTTP else parse_member(uri)
        container = find_container(member, self._kinds) if member else None
        if scheme in HTTP:
            fetched = self._http.read(uri)
        elif member and container and not (scheme == LOCAL and is_local_file(uri)):
            fetched = self._read_member(container, member)
        elif scheme == LOCAL:  # also a file that is called x.tar#y.jpg
            fetched = self._read_local(path_of_uri(uri))
        else:
            fetched = self._read_remote(uri)
        if not fetched.image_bytes:
            raise ImageError(Status.EMPTY, "0 bytes")
        return fetched

    def _read_local(self, path: str) -> Fetched:
        try:
            # O_NONBLOCK: opening a FIFO that nobody writes to would wait for ever.
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                status = os.fstat(descriptor)
                if stat.S_ISDIR(status.st_mode):
                    raise ImageError(Status.UNSUPPORTED, "a folder, not a file")
                if not stat.S_ISREG(status.st_mode):
                    raise ImageError(Status.UNSUPPORTED, "not a regular file")
                if status.st_size > self.max_bytes:
                    raise too_large(status.st_size, self.max_bytes)
                with open(descriptor, "rb", closefd=False) as stream:
                    # Not `max_bytes` at once: Python would make room for them, which takes ten times as long as a photograph.
                    data = stream.read(status.st_size + 1)
                    if len(data) > status.st_size:  # the file has grown
                        data += stream.read(self.max_bytes + 1 - len(data))
            finally:
                os.close(descriptor)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ImageError(Status.MISSING, str(error.strerror)) from None
        except PermissionError as error:
            raise ImageError(Status.DENIED, str(error.strerror)) from None
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            raise ImageError(Status.MISSING, str(error)) from None
        if len(data) > self.max_bytes:
            raise too_large(None, self.max_bytes)
        return Fetched(data, datetime.fromtimestamp(status.st_mtime_ns // 1000 / 1_000_000, tz=timezone.utc))

    def _read_member(self, container: Container, member: MemberUri) -> Fetched:
        filesystem, path = open_filesystem(member.container, self.s3)
        try:
            with _errors_as_statuses():
                return Fetched(read_member(container, filesystem, path, member, self.max_bytes))
        except ImageError as error:
            if error.status is not Status.MISSING or member.place or scheme_of(member.container) == LOCAL:
                raise
            with contextlib.suppress(ImageError):
                return self._read_remote(str(member))  # an object that is called x.tar#y.jpg
            raise

    def _read_remote(self, uri: str) -> Fetched:
        filesystem, path = open_filesystem(uri, self.s3)
        with _errors_as_statuses():
            data = bytes(filesystem.cat_file(path, start=0, end=self.max_bytes + 1))
        if len(data) > self.max_bytes:
            raise too_large(None, self.max_bytes)
        return Fetched(data)


@contextlib.contextmanager
def _errors_as_statuses() -> Iterator[None]:
    """Translate what a filesystem raises into an ImageError."""
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
    except Exception as error:  # each package (botocore, aiohttp, …) has a family of its own
        raise _remote_error(error) from None


def _remote_error(error: Exception) -> ImageError:
    cause = error.__cause__ or error
    response = getattr(cause, "response", None)
    code = response.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(response, dict) else None
    message = f"{type(cause).__name__}: {cause}"
    if code == 416:  # a range of an empty object
        return ImageError(Status.EMPTY, "0 bytes")
    if code is not None:
        return ImageError(http_status(int(code)), message)
    if type(cause).__name__ == "ParamValidationError":  # botocore's: no such bucket or key can exist
        return ImageError(Status.UNSUPPORTED, message)
    if "credentials" in type(cause).__name__.lower():
        return ImageError(Status.DENIED, message)
    return ImageError(Status.TIMEOUT, message)


def _is_transient(error: BaseException) -> bool:
    return isinstance(error, ImageError) and error.status.is_transient


def _wait_s(state: tenacity.RetryCallState) -> float:
    """Choose the seconds until the next attempt: exponential with full jitter, but not before the server's Retry-After."""
    error = state.outcome.exception() if state.outcome else None
    retry_after_s = error.retry_after_s if isinstance(error, ImageError) else 0.0
    return max(BACKOFF(state), min(retry_after_s, LONGEST_WAIT_S))
