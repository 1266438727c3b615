"""What the tests of inputs share: a folder of files, images, and short ways to list and to fetch."""

from __future__ import annotations

import contextlib
import ctypes
import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlcls_ray.config import FetchOptions, S3Options
from mlcls_ray.errors import ImageError, Status
from mlcls_ray.storage.fetch import Fetcher
from mlcls_ray.storage.inputs.listing import InputEntry, LeftOut, list_inputs
from tests.conftest import encode, picture

IMAGES = [encode(picture(seed=number)) for number in range(5)]


def make_folder(folder: Path) -> Path:
    for name in ("b/2.png", "b/1.JPG", "a.webp", "b/notes.txt", ".hidden.jpg", "c/deep/er/x.tiff"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 7)
    return folder


def write_tar(path: Path, names: list[str]) -> Path:
    """Write a shard with one image and one .json per name."""
    with tarfile.open(path, "w") as archive:
        for number, name in enumerate(names):
            member = tarfile.TarInfo(name)
            member.size = len(IMAGES[number])
            archive.addfile(member, BytesIO(IMAGES[number]))
            text = tarfile.TarInfo(name.rpartition(".")[0] + ".json")
            text.size = 2
            archive.addfile(text, BytesIO(b"{}"))
    return path


def write_parquet(path: Path, struct: bool = False) -> Path:
    """Write all IMAGES, two per row group; `struct`: as Hugging Face does."""
    values = [{"bytes": data, "path": f"{number}.jpg"} for number, data in enumerate(IMAGES)] if struct else IMAGES
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())]) if struct else pa.binary()
    table = pa.table({"image": pa.array(values, kind), "caption": ["x"] * len(IMAGES)})
    pq.write_table(table, path, row_group_size=2)
    return path


@contextlib.contextmanager
def obeying_permissions() -> Iterator[None]:
    """Take from this thread, while the body runs, root's right to pass over permission bits; see capabilities(7)."""
    libc = ctypes.CDLL(None)
    header, sets = (ctypes.c_uint32 * 2)(0x2008_0522, 0), (ctypes.c_uint32 * 6)()
    libc.capget(header, sets)
    before = sets[0]
    sets[0] = before & ~0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
    assert libc.capset(header, sets) == 0
    try:
        yield
    finally:
        sets[0] = before
        libc.capset(header, sets)


@contextlib.contextmanager
def closed(folder: Path) -> Iterator[None]:
    """Let nobody enter a folder while the body runs, not even root."""
    folder.chmod(0)
    try:
        with obeying_permissions():
            yield
    finally:
        folder.chmod(0o755)


def entries_of(*inputs: object, s3: S3Options | None = None, column: str | None = None) -> list[InputEntry]:
    return list(list_inputs([str(text) for text in inputs], s3 or S3Options(), column))


def left_out_of(*inputs: object, s3: S3Options | None = None) -> dict[str, int]:
    """The files that a listing leaves out, by suffix."""
    left_out = LeftOut()
    for _ in list_inputs([str(text) for text in inputs], s3 or S3Options(), left_out=left_out):
        pass
    return dict(left_out.counts)


def uris_of(*inputs: object, column: str | None = None) -> list[str]:
    return [entry.uri for entry in entries_of(*inputs, column=column)]


def fetcher(max_bytes: int = 10**6, s3: S3Options | None = None) -> Fetcher:
    return Fetcher(FetchOptions(max_bytes=max_bytes, s3=s3 or S3Options(), fetch_attempts=1))


def status_of(uri: str, reader: Fetcher | None = None) -> Status:
    """The status of a uri that cannot be fetched."""
    with pytest.raises(ImageError) as caught:
        (reader or fetcher()).fetch_once(uri)
    assert str(caught.value)
    return caught.value.status
