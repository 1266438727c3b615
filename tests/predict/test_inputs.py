"""The inputs of `predict`: each type, expanded lazily and in order."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest
from hostile_images import image_files
from PIL import Image

from mlcls_ray.errors import ImageError, Status, UsageError
from mlcls_ray.images.decode import decode
from mlcls_ray.predict.inputs import Page, read_inputs
from tests.conftest import Handler, encode, picture, reply

RED = np.full((4, 6, 3), (200, 10, 20), np.uint8)


def read_one(image: object) -> Page:
    (page,) = read_inputs(image)
    return page


def tiff(pages: int) -> bytes:
    images = [Image.fromarray(np.full((5, 7, 3), 40 * number, np.uint8)) for number in range(pages)]
    stream = io.BytesIO()
    images[0].save(stream, "TIFF", save_all=True, append_images=images[1:])
    return stream.getvalue()


def pdf(pages: int) -> bytes:
    images = [Image.fromarray(np.full((72, 144, 3), 40 * number, np.uint8)) for number in range(pages)]
    stream = io.BytesIO()
    images[0].save(stream, "PDF", save_all=True, append_images=images[1:], resolution=72)
    return stream.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, name in enumerate(("b/2.png", "b/1.jpg", "a.webp", "notes.txt")):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(
            b"text"
            if name.endswith("txt")
            else encode(picture(20 + number, 10), path.suffix[1:].replace("jpg", "jpeg").upper())
        )
    return tmp_path / "photos"


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (RED[:, :, ::-1], RED),
        (RED[:, :, 0], np.repeat(RED[:, :, :1], 3, axis=2)),
        (RED[:, :, :1], np.repeat(RED[:, :, :1], 3, axis=2)),
        (np.dstack([RED[:, :, ::-1], RED[:, :, 0]]), RED),
    ],
    ids=["BGR", "grey", "grey with an axis", "BGRA"],
)
def test_arrays_are_bgr(array: np.ndarray, expected: np.ndarray) -> None:
    page = read_one(array)
    assert np.array_equal(page.image, expected)
    assert (page.path, page.page_index, page.error) == (None, None, None)
    assert len(list(read_inputs(np.stack([array, array])))) == (2 if array.ndim == 3 else 1)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4, 5), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros(4, np.uint8),
    ],
)
def test_an_array_that_is_no_image_becomes_an_error(array: np.ndarray) -> None:
    page = read_one(array)
    assert page.image is None
    assert page.error is not None
    assert page.error.status == Status.UNSUPPORTED


def test_pillow_images_and_bytes() -> None:
    assert np.array_equal(read_one(Image.fromarray(RED)).image, RED)
    assert read_one(Image.fromarray(RED).convert("L")).image.shape == RED.shape
    turned = Image.fromarray(RED)
    turned.getexif()[0x0112] = 6
    assert read_one(turned).image.shape == (6, 4, 3)
    assert np.array_equal(read_one(encode(Image.fromarray(RED), "PNG")).image, RED)


def test_the_same_bytes_get_the_same_status_as_in_a_job() -> None:
    """Half images, whole ones that look damaged, bombs: `label` and `serve` call `decode`."""
    for name, (data, expected) in image_files().items():
        page = read_one(data)
        assert (page.error.status if page.error else Status.OK) == expected, name
        try:
            assert np.array_equal(decode(data).image, page.image), name
        except ImageError as error:
            assert error.status == expected, name


def test_order_is_that_of_lists_folders_and_mappings(folder: Path) -> None:
    """PaddleX returns a folder's images before the files around it, and ignores Paths, tuples and nested lists."""
    inputs = [str(folder / "b" / "1.jpg"), folder, ({"img": str(folder / "a.webp")}, [[RED]]), Path(folder / "b")]
    paths = [page.path and str(Path(page.path).relative_to(folder)) for page in read_inputs(inputs)]
    assert paths == ["b/1.jpg", "a.webp", "b/1.jpg", "b/2.png", "a.webp", None, "b/1.jpg", "b/2.png"]


def test_globs_are_those_of_a_job(folder: Path) -> None:
    """PaddleX knows none. A file with a wildcard in its name is itself, and a glob without matches is an input that is missing."""
    (folder / "x[1].jpg").write_bytes((folder / "b" / "1.jpg").read_bytes())
    paths = [
        page.path
        for page in read_inputs([str(folder / "b" / "*"), str(folder / "**" / "x?1?.jpg"), str(folder / "x[1].jpg")])
    ]
    assert [path and Path(path).name for path in paths] == ["1.jpg", "2.png", "x[1].jpg", "x[1].jpg"]
    for text in (str(folder / "*.bmp"), ""):
        assert getattr(read_one(text).error, "status", None) is Status.MISSING


def test_an_unreadable_file_does_not_affect_its_neighbours(folder: Path) -> None:
    """PaddleX stops there, or returns the batch before it twice."""
    inputs = [
        str(folder / "a.webp"),
        str(folder / "missing.jpg"),
        str(folder / "notes.txt"),
        str(folder / "b" / "1.jpg"),
    ]
    pages = list(read_inputs(inputs))
    assert [page.error and str(page.error.status) for page in pages] == [None, "missing", "not_an_image", None]


@pytest.mark.parametrize(("make", "size"), [(tiff, (5, 7, 3)), (pdf, (144, 288, 3))])
def test_documents_are_read_page_by_page(tmp_path: Path, make: Callable[[int], bytes], size: tuple[int, ...]) -> None:
    path = tmp_path / "document.any"
    path.write_bytes(make(3))
    pages = list(read_inputs([path, make(1)]))
    assert [(page.path and Path(page.path).name, page.page_index) for page in pages] == [
        ("document.any", 0), ("document.any", 1), ("document.any", 2), (None, 0),
    ]  # fmt: skip
    assert all(page.image is not None and page.image.shape == size for page in pages)
    assert [int(page.image.mean()) for page in pages[:3]] == [0, 40, 80]


def test_a_damaged_document_becomes_an_error() -> None:
    page = read_one(b"%PDF-1.7 nothing behind it")
    assert page.error is not None
    assert page.error.status == Status.CORRUPT
    page = read_one(tiff(2)[:20])
    assert page.error is not None


def test_a_document_keeps_the_pages_before_a_damaged_one() -> None:
    whole = tiff(3)
    *pages, last = read_inputs(whole[: whole.rindex(bytes([80]) * 105)])  # without the third page's 5x7 RGB pixels
    assert [page.page_index for page in pages] == [0, 1]
    assert all(page.image is not None for page in pages)
    assert (last.page_index, last.image) == (2, None)
    assert last.error is not None


def test_urls_with_a_query(http_server: Callable[[Handler], str]) -> None:
    """PaddleX refuses a URL whose query hides the suffix."""

    def answer(request: SimpleHTTPRequestHandler) -> None:
        reply(request, encode(picture(30, 20))) if request.path == "/x?a=1&b=2" else reply(request, b"", 404)

    base = http_server(answer)
    good, bad = read_inputs([f"{base}/x?a=1&b=2", f"{base}/gone"])
    assert good.image is not None
    assert good.image.shape == (20, 30, 3)
    assert bad.error is not None
    assert bad.error.status == Status.MISSING


def test_reading_is_lazy(folder: Path) -> None:
    taken = []

    def endless() -> Iterator[str]:
        while True:
            taken.append(1)
            yield str(folder / "a.webp")

    pages = read_inputs(endless())
    for _ in range(3):
        next(pages)
    assert len(taken) < 20


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (3, "type int is not supported"),
        ({"image": "x"}, "needs the key 'img'; it has image"),
        (None, "type NoneType is not supported"),
    ],
)
def test_other_types_are_refused(inputs: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        list(read_inputs(inputs))


@pytest.mark.parametrize(
    "uri",
    ["http://a..b/x.jpg", "http://[::1", "http://xn--a/b.jpg", "http://h:99999/x.jpg", "ftp://h/x.jpg", "gs://b/x.jpg"],
)
def test_a_uri_that_cannot_be_opened_is_a_page_with_an_error(uri: str) -> None:
    first, second = read_inputs([uri, np.zeros((4, 4, 3), np.uint8)])
    assert first.path == uri
    assert first.error is not None
    assert first.error.status is Status.UNSUPPORTED
    assert second.error is None
