"""One image behind an `http(s)://` URL."""

from __future__ import annotations

from collections.abc import Iterator

from mlcls_ray.config import S3Options
from mlcls_ray.storage.inputs.base import InputEntry, InputKind
from mlcls_ray.storage.inputs.left_out import LeftOut
from mlcls_ray.storage.uris import HTTP, scheme_of


class HttpUrl(InputKind):
    """A URL, taken as it is: HTTP has no listing."""

    def takes(self, text: str, s3: S3Options, uri_column: str | None) -> bool:
        return scheme_of(text) in HTTP

    def list_entries(self, text: str, s3: S3Options, uri_column: str | None, left_out: LeftOut) -> Iterator[InputEntry]:
        yield InputEntry(text)
