"""Remote filesystems: prefixes, globs and single objects on `s3://`, `gs://`, `az://`, `hf://` …"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import fsspec

from mlcls_ray.config import S3Options
from mlcls_ray.storage.inputs.base import InputEntry, InputKind, cannot_list, etag_of, is_image_name, mtime_of
from mlcls_ray.storage.inputs.left_out import LeftOut
from mlcls_ray.storage.inputs.s3 import s3_objects
from mlcls_ray.storage.uris import HTTP, S3, is_local, looks_like_glob, open_filesystem, scheme_of


class RemoteFiles(InputKind):
    """A remote uri. Prefixes and globs are filtered by image suffix; an object that is named is taken as it is."""

    def takes(self, text: str, s3: S3Options, uri_column: str | None) -> bool:
        return not is_local(text) and scheme_of(text) not in HTTP

    def list_entries(self, text: str, s3: S3Options, uri_column: str | None, left_out: LeftOut) -> Iterator[InputEntry]:
        scheme = scheme_of(text)
        filesystem, path = open_filesystem(text, s3)
        bucket, _, key = path.partition("/")
        infos: Iterable[dict[str, Any]]
        try:
            if looks_like_glob(text, filesystem, path):
                infos = filesystem.glob(path, detail=True).values()
            elif scheme in S3 and not (key and not key.endswith("/") and filesystem.isfile(path)):
                infos = s3_objects(filesystem, bucket, f"{key.rstrip('/')}/" if key else "")
            else:
                infos = _walk(filesystem, path)
            for info in infos:
                if info.get("type") != "file":
                    continue
                if info["name"] == path or is_image_name(info["name"]):
                    yield InputEntry(f"{scheme}://{info['name']}", info.get("size"), mtime_of(info), etag_of(info))
                else:
                    left_out.add(info["name"])
        except (OSError, ValueError) as error:
            raise cannot_list(text, error) from None


def _walk(filesystem: fsspec.AbstractFileSystem, path: str) -> Iterator[dict[str, Any]]:
    """Yield what fsspec knows about each file under a path; the path may be a file itself."""
    if filesystem.isfile(path):
        yield filesystem.info(path)
        return
    for _, _, files in filesystem.walk(path, detail=True):
        yield from (files[name] for name in sorted(files))
