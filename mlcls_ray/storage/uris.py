"""Uris: how inputs are named.

A local file is its absolute path; a path whose bytes are not UTF-8 becomes a percent-encoded `file://` uri, so that each
uri is valid text and leads back to its file. Everything else keeps the form the user knows (`s3://…`, `https://…`).
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote_to_bytes, urlencode, urlsplit

import fsspec
from fsspec.registry import get_filesystem_class, known_implementations

from mlcls_ray.config import S3Options
from mlcls_ray.errors import UsageError, suggest

LOCAL = "file"
HTTP = ("http", "https")
S3 = ("s3", "s3a")
OTHERS = ("gs", "gcs", "az", "abfs", "abfss", "hf", "memory")
KNOWN_SCHEMES = (LOCAL, *HTTP, *S3, *OTHERS)

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")


def scheme_of(uri: str) -> str:
    """The scheme, lower case; `file` for a plain path.

    Raises:
        UsageError: a scheme we do not read.
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
    """A local path as a uri (see the module's text)."""
    absolute = os.path.abspath(path)
    try:
        absolute.encode("utf-8")
    except UnicodeEncodeError:  # surrogates stand for bytes that are not UTF-8
        return "file://" + quote(os.fsencode(absolute))
    return absolute


def path_of_uri(uri: str) -> str:
    """The local path of a plain path or `file://` uri; the inverse of `uri_of_path`."""
    if not uri.startswith("file://"):
        return uri
    return os.fsdecode(unquote_to_bytes(urlsplit(uri).path if "%" in uri else uri.removeprefix("file://")))


def redact_url(uri: str) -> str:
    """A uri for messages and `run.json`: a URL without user, password, query and fragment."""
    if scheme_of(uri) not in HTTP:
        return uri
    parts = urlsplit(uri)
    return parts._replace(netloc=_without_user(parts.netloc), query="", fragment="").geturl()


def strip_credentials(uri: str) -> str:
    """A uri for the label table: a URL without user, password and what signs it, so that it names the image but does not open it.

    Other query parameters stay: `?id=5` is another image than `?id=6`.
    """
    if not uri.lower().startswith(("http://", "https://")):
        return MEMBER_PLACE.sub(r"\1", uri)
    try:
        parts = urlsplit(uri)
        given = parse_qsl(parts.query, keep_blank_values=True)
    except ValueError:
        return uri.partition("?")[0].rpartition("@")[2]
    secret = SECRET_PARAMETERS | (AZURE_SAS if any(name.lower() == "sig" for name, _ in given) else frozenset())
    kept = [pair for pair in given if pair[0].lower() not in secret and not pair[0].lower().startswith(SECRET_PREFIXES)]
    if len(kept) == len(given) and "@" not in parts.netloc:
        return uri  # to the letter, as the user knows it
    return parts._replace(netloc=_without_user(parts.netloc), query=urlencode(kept)).geturl()


MEMBER_PLACE = re.compile(r"(\.tar#[^#?]+)\?at=\d+&size=\d+$", re.IGNORECASE)
"""Where a member lies in its archive (`members`): the table names it the same wherever that is."""
SECRET_PREFIXES = ("x-amz-", "x-goog-", "x-oss-", "x-bce-", "x-cos-")
SECRET_PARAMETERS = frozenset(
    [
        "signature",
        "sig",
        "awsaccesskeyid",
        "googleaccessid",
        "ossaccesskeyid",
        "key-pair-id",
        "policy",
        "expires",
        "token",
        "access_token",
        "auth",
        "authorization",
        "api_key",
        "apikey",
        "password",
        "secret",
    ]
)
"""Query parameters (lower case) of signed URLs and the usual names of keys."""
AZURE_SAS = frozenset(
    ["sv", "st", "se", "sr", "sp", "sip", "spr", "ss", "srt", "skoid", "sktid", "skt", "ske", "sks", "skv"]
)


def _without_user(netloc: str) -> str:
    return netloc.rpartition("@")[2]


def open_filesystem(uri: str, s3: S3Options | None = None) -> tuple[fsspec.AbstractFileSystem, str]:
    """The fsspec filesystem of a uri, and the uri's path in it.

    Raises:
        UsageError: unknown scheme, or a package that the scheme needs is not installed.
    """
    scheme = scheme_of(uri)
    if scheme == LOCAL:
        return fsspec.filesystem("file"), os.path.abspath(path_of_uri(uri))
    options: dict[str, Any] = {}
    if scheme in S3:
        chosen = s3 or S3Options()
        options = {
            "anon": chosen.anonymous,
            "use_listings_cache": False,  # other processes write too
            "endpoint_url": chosen.endpoint_url,
            "profile": chosen.profile,
            "client_kwargs": {"region_name": chosen.region} if chosen.region else {},
            "config_kwargs": {"connect_timeout": 20, "read_timeout": chosen.timeout_s, "max_pool_connections": 64},
        }
    try:
        filesystem_class = get_filesystem_class(scheme)
    except ImportError:
        hint = known_implementations.get(scheme, {}).get("err", f"install the fsspec package for {scheme}")
        raise UsageError(f"'{uri}': {hint}") from None
    return filesystem_class(**options), filesystem_class._strip_protocol(uri)


def looks_like_glob(uri: str) -> bool:
    """Whether a local path or object uri holds a wildcard and does not itself exist as a file."""
    return any(character in uri for character in "*?[") and not (is_local(uri) and Path(path_of_uri(uri)).exists())
