"""The pages of documents: counted, and each one as a document of its own with the same pixels."""

from __future__ import annotations

import io
import struct

import numpy as np
import pypdfium2
import pytest
from hostile_formats import document
from hostile_images import tiff
from PIL import Image

from mlcls_ray.errors import ImageError, Status
from mlcls_ray.images.decode import decode, decode_pages
from mlcls_ray.images.decoded import MAX_PAGES
from mlcls_ray.images.formats import find_pages
from tests.conftest import encode, picture
from tests.images import tiffs
from tests.images.tiffs import Layout, write_tiff


def status_of(data: bytes, number: int) -> Status:
    with pytest.raises(ImageError) as caught:
        find_pages(data).take(data, number)
    assert str(caught.value)
    return caught.value.status


TIFFS = {
    **{str(name): {"compression": name} for name in (None, "tiff_lzw", "tiff_deflate", "jpeg", "packbits")},
    "BigTIFF": {"compression": "tiff_lzw", "big_tiff": True},
}


@pytest.mark.parametrize("kind", [*TIFFS, "PDF"])
def test_a_page_alone_has_the_same_pixels(kind: str) -> None:
    data = document("PDF") if kind == "PDF" else document("TIFF", **TIFFS[kind])
    pages = find_pages(data)
    assert pages.numbers(data) == [1, 2, 3]
    for number, expected in enumerate(decode_pages(data), 1):
        alone = pages.take(data, number)
        assert len(alone) < len(data)
        assert find_pages(alone).numbers(alone) == [1]
        assert np.array_equal(decode(alone).image, expected.image)
    assert status_of(data, 4) is Status.MISSING
    assert status_of(data, MAX_PAGES + 1) is Status.TOO_LARGE


@pytest.mark.parametrize(
    "layout",
    [
        Layout(),
        Layout(order=">"),
        Layout(16, order=">"),
        Layout(tile=16),
        Layout(planar=2, compression=tiffs.DEFLATE),
        Layout(4, photometric=tiffs.PALETTE, samples=1),
        Layout(1, photometric=tiffs.WHITE_IS_ZERO, samples=1),
        Layout(photometric=tiffs.CMYK, samples=4, orientation=6),
        Layout(samples=4, extra=(1,)),
    ],
)
def test_a_page_keeps_its_layout(layout: Layout) -> None:
    data = write_tiff(layout)
    alone = find_pages(data).take(data, 1)
    assert np.array_equal(decode(alone).image, decode(data).image)


def test_smaller_versions_and_masks_are_no_pages() -> None:
    first, *others = (picture(64 >> number, 48 >> number) for number in range(3))
    data = bytearray(encode(first, "TIFF", save_all=True, append_images=others, tiffinfo={254: 0}))
    entry = struct.pack("<HHII", 254, 4, 1, 0)
    places = [place for place in range(len(data)) if data.startswith(entry, place)]
    assert len(places) == 3
    for place, kind in zip(places[1:], (1, 4), strict=True):
        struct.pack_into("<I", data, place + 8, kind)
    assert find_pages(bytes(data)).numbers(bytes(data)) == [1]


def test_a_circle_of_pages_ends() -> None:
    circle = tiff(8, 1, 1, bytes(64 * 48), (64, 48), following=8 + 64 * 48)
    assert find_pages(circle).numbers(circle) == [1]
    assert status_of(circle, 2) is Status.MISSING


def test_a_hundred_thousand_pages_are_read_up_to_the_limit() -> None:
    """One more is counted: it stands for the rest."""
    page = struct.pack("<H", 1) + struct.pack("<HHII", 256, 4, 1, 1)
    body = b"".join(page + struct.pack("<I", 8 + 18 * (number + 1)) for number in range(100_000))
    data = b"II*\0\x08\0\0\0" + body
    assert find_pages(data).numbers(data) == list(range(1, MAX_PAGES + 2))
    assert status_of(data, MAX_PAGES + 1) is Status.TOO_LARGE
    many = pypdfium2.PdfDocument.new()
    for _ in range(MAX_PAGES + 5):
        many.new_page(10, 10).close()
    stream = io.BytesIO()
    many.save(stream)
    many.close()
    data = stream.getvalue()
    assert find_pages(data).numbers(data) == list(range(1, MAX_PAGES + 2))
    assert status_of(data, MAX_PAGES + 1) is Status.TOO_LARGE


def test_a_page_whose_strips_overlap_stays_in_its_document() -> None:
    """Copying each strip would make the page a thousand times as large."""
    data = bytearray(write_tiff(Layout()))
    alone = find_pages(bytes(data)).take(bytes(data), 1)
    assert decode(alone).image.shape == (tiffs.HEIGHT, tiffs.WIDTH, 3)
    entry = struct.pack("<HHI", 279, 4, 3)
    (place,) = struct.unpack_from("<I", data, data.index(entry) + 8)
    struct.pack_into("<3I", data, place, *[len(data) - 8] * 3)
    assert find_pages(bytes(data)).take(bytes(data), 1) == bytes(data)


def test_damaged_documents() -> None:
    for data in (document("PDF")[:300], b"%PDF-1.7\n", b"II*\0"):
        assert status_of(data, 2) is Status.CORRUPT
    assert status_of(encode(picture()), 2) is Status.MISSING


def test_a_pdf_with_a_password_is_unsupported() -> None:
    """The smallest file that asks for one: its dictionary of encryption has a user password that is not empty."""
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]>>",
    ]
    objects.append(b"<</Filter/Standard/V 1/R 2/P -4/O<%s>/U<%s>>>" % (b"41" * 32, b"42" * 32))
    data, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(data))
        data += b"%d 0 obj%sendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    data += (
        b"xref\n0 5\n0000000000 65535 f \n%strailer<</Size 5/Root 1 0 R/Encrypt 4 0 R/ID[<00><00>]>>\nstartxref\n%d\n%%%%EOF"
        % (
            table,
            len(data),
        )
    )
    with pytest.raises(ImageError, match="password") as caught:
        decode(data)
    assert caught.value.status is Status.UNSUPPORTED


def test_a_pdfs_first_page_is_what_label_and_serve_see() -> None:
    data = document("PDF", pages=2)
    decoded = decode(data)
    assert (decoded.format, decoded.width, decoded.height) == ("pdf", 144, 96)
    shrunk = Image.fromarray(decoded.image).resize((72, 48), Image.Resampling.BOX)
    assert np.abs(np.asarray(shrunk).astype(int) - decode(document("TIFF")).image).mean() < 6
    with pytest.raises(ImageError, match="144x96 pixels; the limit is 100"):
        decode(data, max_pixels=100)
