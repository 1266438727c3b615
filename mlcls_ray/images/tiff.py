"""Decode TIFF. The tags say how pixels are stored; what nobody here reads right is `unsupported`, with its name.

Pillow reads the usual layouts of 8 bits and fewer, with the pixels of OpenCV. OpenCV reads the rest, as far as it does.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import product

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from mlcls_ray.errors import ImageError, Status
from mlcls_ray.images import tiff_tags as tags
from mlcls_ray.images.decoded import MAX_PAGES, Decoded, Pages, Reader, check_pixels, corrupt, unsupported
from mlcls_ray.images.jpeg import EOI, MISSING_DATA
from mlcls_ray.images.jpeg_markers import check_scans, has_several_scans, read_header
from mlcls_ray.images.opencv import imdecode
from mlcls_ray.images.orientation import turn
from mlcls_ray.images.tiff_pages import number_pages, take_page
from mlcls_ray.images.tiff_tags import Directory, read_directories, start_at, without_orientation

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR, _LAB = 0, 1, 2, 3, 5, 6, 8
_COMPRESSIONS = {1, 2, 3, 4, 5, 6, 7, 8, 32771, 32773, 32946, 34925, 50000}
"""None, CCITT, LZW, JPEG, Deflate, PackBits, LZMA, Zstandard."""
_UNSIGNED = 1
_FORMATS = {2: "signed", 3: "float", 4: "untyped", 5: "complex", 6: "complex float"}
_PHOTOMETRICS = {
    4: "transparency mask", 9: "ICC Lab", 10: "ITU Lab", 32803: "colour filter array (raw)", 32844: "log L", 32845: "log Luv",
    34892: "linear raw",
}  # fmt: skip
_PILLOWS = {
    *product((_WHITE_IS_ZERO, _BLACK_IS_ZERO, _PALETTE), (1, 2, 4, 8), (1,)), (_RGB, 8, 3), (_YCBCR, 8, 1),
}  # fmt: skip
"""Layouts with Pillow's pixels, which are OpenCV's: photometric interpretation, bits, samples."""
_OPENCVS = {
    *product((_WHITE_IS_ZERO, _BLACK_IS_ZERO), (8,), (2,)), *product((_WHITE_IS_ZERO, _BLACK_IS_ZERO), (16,), (1,)),
    (_RGB, 8, 4), (_RGB, 16, 3), (_RGB, 16, 4), (_CMYK, 8, 4), (_YCBCR, 8, 3), (_LAB, 8, 3),
}  # fmt: skip
"""Layouts with OpenCV's pixels. What it refuses of them is damaged, if it knows the compression."""
_EITHERS = {(_BLACK_IS_ZERO, 16, 1), (_RGB, 16, 3), (_CMYK, 8, 4), (_CMYK, 16, 4), (_YCBCR, 8, 3)}
"""Layouts that Pillow decodes where OpenCV does not."""
_NOT_OPENCVS = {34925, 50000}
"""Compressions that OpenCV is built without."""
_JPEG = {6, 7}
MIN_CHUNKS = 1 << 16
"""Strips, tiles and bytes that any TIFF may have."""
MAX_TILE = 1 << 24
"""Pixels of a tile, which is decoded whole however small the image is."""


def decode_tiff(image_bytes: bytes, max_pixels: int) -> Iterator[Decoded]:
    """Decode each page to upright RGB, one at a time. Yields at least one page, or raises.

    Raises:
        ImageError: `too_large`, `unsupported` or `corrupt`.
    """
    opened: Image.Image | None = None
    first = 0
    for page, directory in enumerate(read_directories(image_bytes, MAX_PAGES)):
        width, height = directory.value(tags.WIDTH), directory.value(tags.LENGTH)
        check_pixels(width, height, max_pixels)
        tile = directory.value(tags.TILE_WIDTH, 1), directory.value(tags.TILE_LENGTH, 1)
        check_pixels(*tile, max(max_pixels, MAX_TILE))
        layout = _layout(directory)
        _check_data(directory, layout, width, height)
        is_planar = directory.value(tags.PLANAR, 1) == 2
        compression = directory.value(tags.COMPRESSION, 1)
        if compression in _JPEG:
            _check_jpegs(directory)
        image = None if _is_pillows(directory, layout) else imdecode(without_orientation(directory))
        if image is not None and compression != 1:
            _check_compressed(directory)
        if image is not None:
            # OpenCV would apply the orientation to some layouts only.
            image = turn(image, directory.value(tags.ORIENTATION, 1))
        elif _is_pillows(directory, layout) or (layout in _EITHERS and not is_planar):
            try:
                if opened is None:
                    opened, first = Image.open(io.BytesIO(start_at(directory)), formats=("TIFF",)), page
                opened.seek(page - first)
                image = _by_pillow(opened, directory)
            except MemoryError:
                raise
            except UnidentifiedImageError:
                raise corrupt("the TIFF's header is damaged") from None
            except Exception as error:  # of Pillow's parsers
                raise corrupt(f"{type(error).__name__}: {error}") from None
        elif layout in _OPENCVS - ({(_LAB, 8, 3)} if is_planar else set()) and compression not in _NOT_OPENCVS:
            raise corrupt("the TIFF's pixels are damaged or end early")
        else:
            raise unsupported(_name(directory))
        yield Decoded(image, "tiff", image.shape[1], image.shape[0])


def _check_data(directory: Directory, layout: tuple[int, int, int], width: int, height: int) -> None:
    """Refuse pixels that lie beyond the end, uncompressed ones in too few bytes, and strips that would be read for ever."""
    for tag in (tags.STRIP_OFFSETS, tags.STRIP_COUNTS, tags.TILE_OFFSETS, tags.TILE_COUNTS):
        if tag in directory.entries and directory.entries[tag].length > MIN_CHUNKS + width * height:
            raise ImageError(Status.TOO_LARGE, "the TIFF has more strips or tiles than pixels")
    if directory.data_size > 2 * len(directory.image_bytes) + MIN_CHUNKS:
        raise ImageError(Status.TOO_LARGE, "the TIFF's strips or tiles overlap: reading each would take for ever")
    if directory.data_end > len(directory.image_bytes):
        raise corrupt("the TIFF's pixels lie beyond its end")
    _, bits, samples = layout
    needed = (width * bits * samples + 7) // 8 * height
    is_subsampled = layout[0] == _YCBCR
    if directory.value(tags.COMPRESSION, 1) == 1 and not is_subsampled and 0 < directory.data_size < needed:
        raise corrupt(f"the TIFF's pixels have {directory.data_size} bytes of {needed}")


def _check_jpegs(directory: Directory) -> None:
    """Refuse JPEG strips or tiles with data missing, of which libtiff says nothing."""
    tables = directory.blob(tags.JPEG_TABLES)
    tile = directory.value(tags.TILE_WIDTH) * directory.value(tags.TILE_LENGTH)
    pixels_left = 4 * (directory.value(tags.WIDTH) * directory.value(tags.LENGTH) + tile) + MIN_CHUNKS
    for chunk in directory.chunks():
        if not chunk.startswith(b"\xff\xd8"):
            return  # TIFF 6's old JPEG, whose parts lie elsewhere
        header = read_header(chunk)
        if has_several_scans(header):
            check_scans(chunk, header)
        pixels_left -= header.frame.width * header.frame.height
        if pixels_left < 0:
            raise corrupt("the TIFF's JPEGs are larger than the image")
        try:
            simplejpeg.decode_jpeg((tables[:-2] + chunk[2:] if tables else chunk) + EOI, "GRAY", strict=True)
        except ValueError as error:
            if MISSING_DATA.search(str(error)):
                raise corrupt(f"in the TIFF: {error}") from None


def _check_compressed(directory: Directory) -> None:
    """Refuse strips or tiles that end early: OpenCV shows what there is, Pillow refuses, if it knows the layout."""
    try:
        with Image.open(io.BytesIO(start_at(directory)), formats=("TIFF",)) as opened:
            opened.load()
    except UnidentifiedImageError:
        pass
    except OSError as error:
        raise corrupt(f"the TIFF's pixels end early ({error})") from None


def _is_pillows(directory: Directory, layout: tuple[int, int, int]) -> bool:
    """Tell whether Pillow decodes a page. It knows no big-endian BigTIFF."""
    if directory.image_bytes.startswith(tags.MAGICS[3]):
        return False
    return layout in _PILLOWS or (layout == (_YCBCR, 8, 3) and directory.value(tags.COMPRESSION, 1) in _JPEG)


def _by_pillow(opened: Image.Image, directory: Directory) -> np.ndarray:
    """Decode a page; Pillow turns it upright."""
    opened.info.pop("xmp", None)  # Pillow would turn the image by it
    opened.load()
    if opened.mode == "P":
        colors = np.asarray(directory.values(tags.COLOR_MAP), np.uint16)
        if colors.size and colors.max() < 256:  # meant for 8 bits, as libtiff guesses
            table = np.zeros((256, 3), np.uint8)
            table[: colors.size // 3] = colors[: colors.size // 3 * 3].reshape(3, -1).T[:256]
            return np.asarray(table[np.asarray(opened)])
    if opened.mode.startswith("I;16"):
        return np.repeat((np.asarray(opened) >> 8).astype(np.uint8)[..., None], 3, axis=2)
    return np.asarray(opened.convert("RGB"))


def _layout(directory: Directory) -> tuple[int, int, int]:
    """The photometric interpretation, bits and samples of a page.

    Raises:
        ImageError: `unsupported`: nobody here reads them right.
    """
    bits = directory.values(tags.BITS, (1,))
    samples = directory.value(tags.SAMPLES, 1)
    photometric = directory.value(tags.PHOTOMETRIC, _BLACK_IS_ZERO)
    if directory.value(tags.COMPRESSION, 1) not in _COMPRESSIONS:
        raise unsupported(_name(directory))
    if any(kind != _UNSIGNED for kind in directory.values(tags.SAMPLE_FORMAT, (_UNSIGNED,))):
        raise unsupported(_name(directory))
    if len(set(bits)) > 1 or bits[0] not in (1, 2, 4, 8, 16) or photometric in _PHOTOMETRICS:
        raise unsupported(_name(directory))
    return photometric, bits[0], samples


def _name(directory: Directory) -> str:
    """Describe how a page is stored: "TIFF of 3 samples of 32-bit float, LERC"."""
    bits = directory.values(tags.BITS, (1,))
    kind = _FORMATS.get(directory.value(tags.SAMPLE_FORMAT, _UNSIGNED), "")
    compression = directory.value(tags.COMPRESSION, 1)
    photometric = directory.value(tags.PHOTOMETRIC, _BLACK_IS_ZERO)
    samples = directory.value(tags.SAMPLES, 1)
    words = [
        f"TIFF of {samples} {'sample' if samples == 1 else 'samples'} of {'/'.join(map(str, dict.fromkeys(bits)))}-bit {kind}".rstrip(),
        _PHOTOMETRICS.get(photometric, "" if photometric <= _LAB else f"photometric interpretation {photometric}"),
        ""
        if compression in _COMPRESSIONS - _NOT_OPENCVS
        else f"compression {tags.NAMES_OF_COMPRESSIONS.get(compression, compression)}",
    ]
    return ", ".join(filter(None, words))


READER = Reader(
    "TIFF",
    lambda image_bytes: image_bytes.startswith(tags.MAGICS),
    decode_tiff,
    (".tif", ".tiff"),
    pages=Pages(number_pages, take_page),
)
