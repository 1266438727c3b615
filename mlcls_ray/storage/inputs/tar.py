"""Tar archives (webdataset shards): `shard-000.tar#0001.jpg`."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator

import fsspec

from mlcls_ray.config import S3Options
from mlcls_ray.errors import UsageError
from mlcls_ray.storage.inputs.base import has_suffix
from mlcls_ray.storage.inputs.containers import Archive, read_range
from mlcls_ray.storage.uris import HTTP, Place, scheme_of

COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
READ_AHEAD = 8 << 20


class TarArchive(Archive):
    """An uncompressed tar archive. A place is where a member's bytes are."""

    suffixes = (".tar",)

    def takes(self, text: str, s3: S3Options, uri_column: str | None) -> bool:
        if super().takes(text, s3, uri_column):
            return True
        if has_suffix(text, COMPRESSED) and scheme_of(text) not in HTTP:
            raise UsageError(
                f"input '{text}': members of a compressed archive cannot be read one by one; pack it as .tar"
            )
        return False

    def list_files(self, filesystem: fsspec.AbstractFileSystem, path: str) -> Iterator[tuple[str, int, Place]]:
        """Read the archive once, from front to back. The headers are between the members, so on S3 all of it is transferred."""
        try:
            with (
                filesystem.open(path, "rb", block_size=READ_AHEAD) as stream,
                tarfile.open(fileobj=stream, mode="r:") as archive,
            ):
                for member in archive:
                    archive.members = []  # type: ignore[attr-defined]  # else it keeps every header in memory
                    if member.isreg() and not member.issparse():
                        yield member.name, member.size, Place(member.offset_data, member.size)
        except (tarfile.TarError, EOFError) as error:
            raise UsageError(f"archive '{path}' cannot be read: {error}") from None

    def read_place(self, filesystem: fsspec.AbstractFileSystem, path: str, place: Place, max_bytes: int) -> bytes:
        return read_range(filesystem, path, place, max_bytes)
