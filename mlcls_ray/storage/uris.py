"""Uris: how inputs are named.

A local file is its absolute path. A path whose bytes are not UTF-8 becomes a percent-encoded `file://` uri, so that each
uri is valid text and leads back to its file. Everything else keeps the form the user knows (`s3://…`, `https://…`).

An image inside a file (a member of a tar, a row of a Parquet file) is `container#member`. In the manifest it may also say
where its bytes are, `container#member?at=OFFSET&size=BYTES`, so that a worker reads only these.

A page of a document, from the second one on, is `document#page=2`, as RFC 8118 has it for PDF; the document's own uri is its first page.
The document may be a member: `shard.tar#scan.tif#page=2`.

Two functions remove secrets from a uri, for two uses:
- `redact_url` for people: messages, logs, `run.json`. It removes the whole query of a URL.
- `strip_credentials` for the label table: it removes only what signs a URL, so that two images still have two names.
"""

from __future__ import annotations

import os
import re
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote, unquote_to_bytes, urlencode, urlsplit

import fsspec
from fsspec.registry import get_filesystem_class, known_implementations

from mlcls_ray.config import S3Options
from mlcls_ray.errors import UsageError, suggest
from mlcls_ray.logs import hide_library_urls

LOCAL = "file"
HTTP = ("http", "https")
S3 = ("s3", "s3a")
OTHERS = ("gs", "gcs", "az", "abfs", "abfss", "hf", "memory")
KNOWN_SCHEMES = (LOCAL, *HTTP, *S3, *OTHERS)

EXTRAS = {"gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure", "abfss": "azure", "hf": "huggingface"}
"""The extra of this package that reads a scheme."""

_FILE_URI = re.compile(r"file://(localhost(?=/))?", re.IGNORECASE)
_URL = re.compile(r"https?://[^\s'\"<>]+", re.IGNORECASE)
_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
_MEMBER = re.compile(r"(?s)(?P<container>.+\.\w+)#(?P<name>[^#?]+)(?:\?at=(?P<at>\d{1,18})&size=(?P<size>\d{1,18}))?")
_PLACE = re.compile(r"(\.\w+#[^#?]+)\?at=\d+&size=\d+(?=\Z|#page=\d+\Z)")
_PAGE = re.compile(r"(?s)(?P<document>.+)#page=(?P<number>[1-9]\d{0,8})")

SECRET_PREFIXES = ("x-amz-", "x-goog-", "x-oss-", "x-bce-", "x-cos-")
SECRET_PARAMETERS = frozenset([
    "signature", "sig", "awsaccesskeyid", "googleaccessid", "ossaccesskeyid", "key-pair-id", "policy", "expires",
    "token", "access_token", "auth", "authorization", "api_key", "apikey", "password", "secret",
])  # fmt: skip
"""Query parameters (lower case) of signed URLs, and the usual names of keys."""
AZURE_SAS = frozenset([
    "sv", "st", "se", "sr", "sp", "sip", "spr", "ss", "srt", "skoid", "sktid", "skt", "ske", "sks", "skv",
])  # fmt: skip
"""Further query parameters of a URL that is signed the Azure way, with `sig`."""


def scheme_of(uri: str) -> str:
    """Return the scheme in lower case; `file` for a plain path.

    Raises:
        UsageError: the scheme is not one of KNOWN_SCHEMES.
    """
    match = _SCHEME.match(uri)
    if match is None:
        return LOCAL
    scheme = match.group(1).lower()
    if scheme not in KNOWN_SCHEMES:
        raise UsageError(f"'{uri}': unknown scheme '{scheme}'{suggest(scheme, KNOWN_SCHEMES)}")
    return scheme


def is_local(uri: str) -> bool:
    return scheme_of(uri) == LOCAL


def uri_of_path(path: str | os.PathLike[str]) -> str:
    """Name a local path by its uri: the absolute path, or `file://` with percent-encoding where it is not UTF-8."""
    absolute = os.path.abspath(path)
    try:
        absolute.encode("utf-8")
    except UnicodeEncodeError:  # Python puts surrogates for bytes that are not UTF-8
        return "file://" + quote(os.fsencode(absolute))
    return absolute


def path_of_uri(uri: str) -> str:
    """Return the local path of a plain path, `file:///…` or `file://localhost/…` uri; the inverse of `uri_of_path`."""
    prefix = _FILE_URI.match(uri)
    if prefix is None:
        return uri
    path = uri[prefix.end() :]
    return os.fsdecode(unquote_to_bytes(re.split("[?#]", path, maxsplit=1)[0] if "%" in path else path))


def readable_path(uri: str) -> str:
    """Return the path of a local image, as other tools take it; the uri where it is remote, or its path is not UTF-8."""
    path = path_of_uri(uri) if is_local(uri) else uri
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return uri
    return path


class Place(NamedTuple):
    """The place of a member's bytes in its container: offset and length in bytes."""

    at: int
    size: int


class MemberUri(NamedTuple):
    """The parts of a member's uri. `name` is percent-encoded; `place` is None where the uri does not say it."""

    container: str
    name: str
    place: Place | None = None

    def __str__(self) -> str:
        place = f"?at={self.place.at}&size={self.place.size}" if self.place else ""
        return f"{self.container}#{self.name}{place}"


def parse_member(uri: str) -> MemberUri | None:
    """Split `container#member`; None where a uri does not have this form. The kinds of input know which containers exist."""
    match = _MEMBER.fullmatch(uri)
    if match is None:
        return None
    place = Place(int(match["at"]), int(match["size"])) if match["at"] else None
    return MemberUri(match["container"], match["name"], place)


class PageUri(NamedTuple):
    """The parts of a page's uri. Pages count from 1."""

    document: str
    number: int

    def __str__(self) -> str:
        return f"{self.document}#page={self.number}"


def parse_page(uri: str) -> PageUri | None:
    """Split `document#page=2`; None where a uri does not have this form. Whether the document has pages is told by its bytes."""
    match = _PAGE.fullmatch(uri) if "#page=" in uri else None
    return None if match is None else PageUri(match["document"], int(match["number"]))


def redact_url(uri: str) -> str:
    """Make a uri safe to show to people: a URL without user, password, query and fragment.

    Use it in messages, logs and `run.json`. Uris of the label table need `strip_credentials`. It never raises: it is used where
    something has failed already.
    """
    if not uri.lower().startswith(("http://", "https://")):
        return uri
    try:
        parts = urlsplit(uri)
    except ValueError:  # not a valid URL
        return _without_secrets(uri)
    return parts._replace(netloc=_without_user(parts.netloc), query="", fragment="").geturl()


def redact_urls(text: object) -> str:
    """Redact each URL in a text that a library made, such as the message of an error."""
    return _URL.sub(lambda found: redact_url(found[0]), str(text))


def strip_credentials(uri: str) -> str:
    """Make the uri that the label table stores: it names the image, but does not open it.

    A URL loses user, password and the parameters that sign it. Other query parameters stay: `?id=5` is another image than
    `?id=6`. A member loses its place, which may change when its container is written again. Messages need `redact_url`.
    """
    if not uri.lower().startswith(("http://", "https://")):
        return without_place(uri)
    try:
        parts = urlsplit(uri)
        parameters = parse_qsl(parts.query, keep_blank_values=True)
    except ValueError:  # not a valid URL
        return _without_secrets(uri)
    secret = SECRET_PARAMETERS | (AZURE_SAS if any(name.lower() == "sig" for name, _ in parameters) else frozenset())
    kept = [
        (name, value)
        for name, value in parameters
        if name.lower() not in secret and not name.lower().startswith(SECRET_PREFIXES)
    ]
    if len(kept) == len(parameters) and "@" not in parts.netloc:
        return uri  # unchanged: `urlencode` might spell it differently
    return parts._replace(netloc=_without_user(parts.netloc), query=urlencode(kept)).geturl()


def _without_secrets(uri: str) -> str:
    """Remove everything that may be a secret from a URL that cannot be parsed."""
    return uri.partition("?")[0].rpartition("@")[2]


def _without_user(netloc: str) -> str:
    return netloc.rpartition("@")[2]


def open_filesystem(uri: str, s3: S3Options | None = None) -> tuple[fsspec.AbstractFileSystem, str]:
    """Open the fsspec filesystem of a uri; returns it and the uri's path in it.

    Raises:
        UsageError: the scheme is unknown, or the package that it needs is not installed.
    """
    scheme = scheme_of(uri)
    if scheme == LOCAL:
        return fsspec.filesystem("file"), os.path.abspath(path_of_uri(uri))
    hide_library_urls()
    options: dict[str, Any] = {}
    if scheme in S3:
        s3 = s3 or S3Options()
        options = {
            "anon": s3.anonymous,
            "max_concurrency": 1,  # s3fs tries a request again, but none of those that it sends at once for 50 MB and more
            "use_listings_cache": False,  # other processes write to the bucket as well
            "endpoint_url": s3.endpoint_url,
            "profile": s3.profile,
            "client_kwargs": {"region_name": s3.region} if s3.region else {},
            "config_kwargs": {"connect_timeout": 20, "read_timeout": s3.timeout_s, "max_pool_connections": 64},
        }
    filesystem_class = check_scheme(uri)
    uri = scheme + uri[len(scheme) :]  # fsspec knows lower case only
    return filesystem_class(**options), filesystem_class._strip_protocol(uri)


def check_scheme(uri: str) -> type[fsspec.AbstractFileSystem]:
    """Return the class of a uri's filesystem.

    Raises:
        UsageError: the scheme is unknown, or the package that it needs is not installed; with the extra that has it.
    """
    scheme = scheme_of(uri)
    try:
        found: type[fsspec.AbstractFileSystem] = get_filesystem_class(scheme)
    except ImportError:
        hint = known_implementations.get(scheme, {}).get("err", f"install the fsspec package for {scheme}")
        extra = f": pip install 'mlcls-ray[{EXTRAS[scheme]}]'" if scheme in EXTRAS else ""
        raise UsageError(f"'{uri}': {hint}{extra}") from None
    return found


def looks_like_glob(uri: str, filesystem: fsspec.AbstractFileSystem, path: str) -> bool:
    """Tell whether an input is a pattern: it has a wildcard, and is not the name of a file, an object or a folder.

    `path`: of the input in the filesystem.

    Raises:
        OSError: the filesystem cannot be asked.
    """
    return any(character in uri for character in "*?[") and not filesystem.exists(path)


def is_http(uri: str) -> bool:
    """Tell whether a text is a URL of a web server. Unlike `scheme_of` it takes any text."""
    return uri[: len("https://")].lower().startswith(tuple(f"{scheme}://" for scheme in HTTP))


def without_place(uri: str) -> str:
    """Return a member's uri without the place of its bytes."""
    return _PLACE.sub(r"\1", uri) if "#" in uri else uri  # no pattern for each of a hundred million files


def without_query(uri: str) -> str:
    """Return a URL without its query; other uris have none, and a `?` is part of their name."""
    return uri.partition("?")[0] if is_http(uri) else uri


def is_local_file(uri: str) -> bool:
    """Tell whether a local uri as a whole names something that exists. In an encoded `file://` uri a `#` begins a member's name."""
    is_encoded = "%" in uri and _FILE_URI.match(uri)
    return not (is_encoded and "#" in uri) and os.path.lexists(path_of_uri(uri))
