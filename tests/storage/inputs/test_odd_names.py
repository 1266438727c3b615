"""Paths are data: an input with an odd name is that input, whatever the name means elsewhere, and in each form that an input has."""

from __future__ import annotations

import io
import tarfile
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlcls_ray.config import S3Options
from mlcls_ray.storage.inputs.listing import check_inputs, list_inputs
from mlcls_ray.storage.uris import is_local, open_filesystem, strip_credentials, uri_of_path
from tests.conftest import encode, picture
from tests.odd_names import NOT_UTF8, ODD_NAMES
from tests.s3_servers import BUCKET
from tests.storage.inputs.samples import IMAGES, fetcher

OTHER = encode(picture(seed=99))


class Place:
    """A folder, local or on S3, with files that are named by paths in it."""

    def __init__(self, root: str, s3: S3Options) -> None:
        self.root, self.s3 = root, s3

    def uri(self, path: str) -> str:
        """As a listing names it."""
        name = f"{self.root}/{path}"
        return uri_of_path(name) if is_local(self.root) else name

    def write(self, path: str, data: bytes) -> None:
        filesystem, place = open_filesystem(f"{self.root}/{path}", self.s3)
        if is_local(self.root):
            Path(place).parent.mkdir(parents=True, exist_ok=True)
            Path(place).write_bytes(data)
        else:
            filesystem.pipe_file(place, data)

    def listed(self, path: str) -> list[str]:
        """The uris of an input."""
        check_inputs([self.uri(path)], self.s3)
        return [entry.uri for entry in list_inputs([self.uri(path)], self.s3)]

    def read(self, uri: str) -> bytes:
        return fetcher(s3=self.s3).fetch_once(uri).image_bytes


@pytest.fixture
def local(tmp_path: Path) -> Place:
    return Place(str(tmp_path), S3Options())


@pytest.fixture
def remote(s3_slowly: str) -> Place:
    return Place(f"s3://{BUCKET}/{uuid.uuid4().hex}", S3Options(endpoint_url=s3_slowly))


def tar_of(name: str) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(IMAGES[0])
        archive.addfile(member, io.BytesIO(IMAGES[0]))
    return stream.getvalue()


def zip_of(name: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("0.jpg" if name.startswith(NOT_UTF8) else name, IMAGES[0])
    return stream.getvalue()


def parquet_of(name: str) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table({"image": [IMAGES[0]]}), stream)
    return stream.getvalue()


def list_of(name: str) -> bytes:
    return f"{name}.jpg\n".encode(errors="surrogateescape")


def wrong_inputs(place: Place, name: str) -> Iterator[str]:
    """The forms in which an input of this name is not itself. Siblings lie where a pattern of that name would find them."""
    for sibling in ("axb", "x", "ab"):
        place.write(f"{sibling}/0.jpg", OTHER)
        place.write(f"{sibling}.jpg", OTHER)
    place.write(f"{name}/{name}.jpg", IMAGES[0])
    place.write(f"{name}.jpg", IMAGES[0])
    for form, path in {"folder": name, "folder/": f"{name}/", "file in it": f"{name}/{name}.jpg"}.items():
        if place.listed(path) != [place.uri(f"{name}/{name}.jpg")]:
            yield form
    if place.listed(f"{name}.jpg") != [place.uri(f"{name}.jpg")] or place.read(place.uri(f"{name}.jpg")) != IMAGES[0]:
        yield "file"
    is_plain = not any(character in name for character in "*?[")
    if is_plain and name != NOT_UTF8 and place.listed(f"{name}/*.jpg") != [place.uri(f"{name}/{name}.jpg")]:
        yield "pattern in it"
    for suffix, make in {"tar": tar_of, "zip": zip_of, "parquet": parquet_of}.items():
        place.write(f"in/{name}.{suffix}", make(f"{name}.jpg"))
        (uri,) = place.listed(f"in/{name}.{suffix}")
        if not uri.startswith(place.uri(f"in/{name}.{suffix}") + "#"):
            yield suffix
        if any(place.read(spelled) != IMAGES[0] for spelled in (uri, strip_credentials(uri))):
            yield f"image in {suffix}"
    if "\n" not in name:
        place.write(f"in/{name}.txt", list_of(name))
        place.write(f"in/{name}.jpg", IMAGES[0])
        if place.listed(f"in/{name}.txt") != [place.uri(f"in/{name}.jpg")]:
            yield "list"


@pytest.mark.parametrize("name", [*ODD_NAMES, NOT_UTF8])
def test_a_local_input_is_itself(local: Place, name: str) -> None:
    assert list(wrong_inputs(local, name)) == []


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name, marks=() if name in ("a?b", "[x]", "a*b", "a b ", "a#b", "x.tar#y", "x.zip") else pytest.mark.slow
        )
        for name in ODD_NAMES
        if "\n" not in name and "\\" not in name  # the servers' own limits
    ],
)
def test_a_remote_input_is_itself(remote: Place, name: str) -> None:
    assert list(wrong_inputs(remote, name)) == []


def test_blanks_around_a_listed_name(local: Place) -> None:
    """They are part of it where such a file exists."""
    for name in ("a.jpg ", " b.jpg", "c.jpg"):
        local.write(name, IMAGES[0])
    local.write("list.txt", b"a.jpg \r\n b.jpg\n c.jpg \n\n")
    assert local.listed("list.txt") == [local.uri(name) for name in ("a.jpg ", " b.jpg", "c.jpg")]
