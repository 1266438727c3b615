"""Pages of documents are uris of their own: listed, read, and remembered no more than a few documents at a time."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hostile_formats import document

from mlcls_ray.config import S3Options
from mlcls_ray.errors import ImageError, Status
from mlcls_ray.images.decode import decode, decode_pages
from mlcls_ray.storage.inputs.base import InputEntry
from mlcls_ray.storage.inputs.listing import list_inputs
from mlcls_ray.storage.pages import PageReader, is_document, list_pages
from mlcls_ray.storage.uris import PageUri, parse_page, strip_credentials
from tests.conftest import Handler, encode, picture, reply
from tests.storage.inputs.samples import fetcher, status_of

TIFF, PDF = document("TIFF"), document("PDF")


def listed(*inputs: object) -> Iterator[InputEntry]:
    entries = list_inputs([str(text) for text in inputs], S3Options())
    return list_pages(entries, lambda uri: fetcher().fetch(uri).image_bytes, 4)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "pa pers"
    folder.mkdir()
    (folder / "a.pdf").write_bytes(PDF)
    (folder / "b.TIF").write_bytes(TIFF)
    (folder / "c.jpg").write_bytes(encode(picture()))
    (folder / "d.tiff").write_bytes(encode(picture(), "TIFF"))
    (folder / "e.pdf").write_bytes(PDF[:100])
    (folder / "f.tif").write_bytes(b"")
    with zipfile.ZipFile(folder / "g.zip", "w") as archive:
        archive.writestr("deep/#1 ü.tif", TIFF)
    return folder


def test_each_page_is_an_entry(folder: Path) -> None:
    os.mkfifo(folder / "h.tif")
    entries = list(listed(folder, folder / "h.tif", folder / "missing.pdf"))
    names = [entry.uri.removeprefix(f"{folder}/") for entry in entries]
    assert names == [
        "a.pdf", "a.pdf#page=2", "a.pdf#page=3", "b.TIF", "b.TIF#page=2", "b.TIF#page=3", "c.jpg", "d.tiff", "e.pdf", "f.tif", "h.tif",
        "missing.pdf",
    ]  # fmt: skip
    first, second = entries[:2]
    assert (first.size_bytes, first.etag) == (len(PDF), None)
    assert (second.size_bytes, second.mtime) == (None, first.mtime)
    assert second.etag
    os.utime(folder / "a.pdf", (1, 1))
    assert list(listed(folder))[1].etag != second.etag, "a page changes when its document does"


def test_pages_have_the_pixels_of_their_document(folder: Path) -> None:
    reader = fetcher()
    for name, data in (("a.pdf", PDF), ("b.TIF", TIFF)):
        uris = [entry.uri for entry in listed(folder / name)]
        images = [decode(reader.fetch(uri).image_bytes).image for uri in uris]
        for actual, expected in zip(images, decode_pages(data), strict=True):
            assert np.array_equal(actual, expected.image)


def test_pages_of_members(folder: Path) -> None:
    """The manifest's uri has the place of the member; the table's has not. Both are read."""
    uris = [entry.uri for entry in listed(folder / "g.zip")]
    plain = [strip_credentials(uri) for uri in uris]
    assert plain == [f"{folder}/g.zip#deep/%231 %C3%BC.tif{page}" for page in ("", "#page=2", "#page=3")]
    assert all("?at=" in uri for uri in uris)
    pages = [page.image for page in decode_pages(TIFF)]
    for names in (uris, plain):
        for uri, expected in zip(names, pages, strict=True):
            assert np.array_equal(decode(fetcher().fetch(uri).image_bytes).image, expected)


def test_pages_over_http(http_server: Callable[[Handler], str]) -> None:
    base = http_server(lambda request: reply(request, PDF))
    uri = f"{base}/a.pdf?id=5#page=3"
    assert strip_credentials(uri) == uri
    reader = fetcher()
    assert len(decode(reader.fetch(uri).image_bytes).image) == 96
    assert status_of(f"{base}/a.pdf#page=4", reader) is Status.MISSING


def test_a_page_that_cannot_be_read_says_why(folder: Path) -> None:
    expected = {
        "a.pdf#page=9": Status.MISSING,
        "a.pdf#page=10001": Status.TOO_LARGE,
        "e.pdf#page=2": Status.CORRUPT,
        "missing.pdf#page=2": Status.MISSING,
        "c.jpg#page=2": Status.MISSING,
        "f.tif#page=2": Status.EMPTY,
        "g.zip#no.tif#page=2": Status.MISSING,
    }
    assert {name: status_of(f"{folder}/{name}") for name in expected} == expected
    (folder / "picture.tif").write_bytes(encode(picture()))
    assert status_of(f"{folder}/picture.tif#page=2") is Status.MISSING
    assert status_of(f"{folder}/a.pdf#page=2", fetcher(max_bytes=100)) is Status.TOO_LARGE


def test_a_file_of_that_name_wins(folder: Path) -> None:
    (folder / "a.pdf#page=2").write_bytes(encode(picture()))
    assert decode(fetcher().fetch(f"{folder}/a.pdf#page=2").image_bytes).format == "jpeg"


def test_a_document_is_read_once_for_its_pages() -> None:
    documents = {"a.pdf": PDF, "b.tif": TIFF, "c.tif": TIFF}
    asked: list[str] = []

    def read(uri: str) -> bytes:
        asked.append(uri)
        if uri not in documents:
            raise ImageError(Status.MISSING, "no such file")
        return documents[uri]

    reader = PageReader(read)
    for name in ("a.pdf", "a.pdf", "b.tif", "a.pdf", "c.tif", "c.tif", "b.tif"):
        assert reader.read(PageUri(name, 2))
    assert asked == ["a.pdf", "b.tif", "c.tif", "b.tif"]
    for _ in range(2):  # a failure is not remembered
        with pytest.raises(ImageError):
            reader.read(PageUri("gone.tif", 2))
    assert asked[4:] == ["gone.tif"] * 2


def test_page_uris() -> None:
    assert parse_page("/a b/x.pdf#page=12") == PageUri("/a b/x.pdf", 12)
    assert str(PageUri("s3://bucket/x.tif", 2)) == "s3://bucket/x.tif#page=2"
    for text in ("/x.pdf", "/x.pdf#page=0", "/x.pdf#page=", "/x.pdf#page=1234567890", "/x.pdf#page=2/y", "#page=2"):
        assert parse_page(text) is None
    assert [is_document(uri) for uri in ("/x.PDF", "https://h/x.tif?a=1", "/x.zip#a.tif?at=1&size=2", "/x.jpg", "/x.pdf#page=2")] == [
        True, True, True, False, False,
    ]  # fmt: skip
