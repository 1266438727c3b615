"""Decode TIFF. The tags say how pixels are stored; what nobody here reads right is `unsupported`, with its name.

Pillow reads the usual layouts of 8 bits and fewer, with the pixels of OpenCV. OpenCV reads the rest, as far as it does.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import product

import numpy as np
from PIL import Image

from mlcls_ray.images import tiff_tags as tags
from mlcls_ray.images.decoded import Decoded, check_pixels, corrupt, unsupported
from mlcls_ray.images.opencv import imdecode
from mlcls_ray.images.orientation import turn
from mlcls_ray.images.tiff_tags import Directory, read_directories, start_at, without_orientation

MAX_PAGES = 10_000
"""Pages read of one document."""
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR, _LAB = 0, 1, 2, 3, 5, 6, 8
_COMPRESSIONS = {1, 2, 3, 4, 5, 6, 7, 8, 32771, 32773, 32946, 34925, 50000}
"""None, CCITT, LZW, JPEG, Deflate, PackBits, LZMA, Zstandard."""
_UNSIGNED = 1
_FORMATS = {2: "signed", 3: "float", 4: "untyped", 5: "complex", 6: "complex float"}
_PHOTOMETRICS = {
    4: "transparency mask", 9: "ICC Lab", 10: "ITU Lab", 32803: "colour filter array (raw)", 32844: "log L", 32845: "log Luv", 34892: "linear raw",
}  # fmt: skip
_PILLOWS = {
    (_WHITE_IS_ZERO, 1, 1), (_WHITE_IS_ZERO, 2, 1), (_WHITE_IS_ZERO, 4, 1), (_WHITE_IS_ZERO, 8, 1),
    (_BLACK_IS_ZERO, 1, 1), (_BLACK_IS_ZERO, 2, 1), (_BLACK_IS_ZERO, 4, 1), (_BLACK_IS_ZERO, 8, 1),
    (_PALETTE, 1, 1), (_PALETTE, 2, 1), (_PALETTE, 4, 1), (_PALETTE, 8, 1),
    (_RGB, 8, 3), (_CMYK, 8, 4), (_YCBCR, 8, 3), (_YCBCR, 8, 1),
}  # fmt: skip
"""Layouts that Pillow reads: photometric interpretation, bits, samples."""
_OPENCVS = {
    (photometric, bits, samples)
    for photometric, bits, samples in product((_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _CMYK, _LAB), (8, 16), (1, 3, 4))
    if samples == 1 or photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO)
}
"""Layouts that OpenCV reads: what it refuses of them is damaged."""
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
        if layout not in _PILLOWS:
            image = _by_opencv(directory, layout)
        else:
            try:
                if opened is None:
                    opened, first = Image.open(io.BytesIO(start_at(directory)), formats=("TIFF",)), page
                opened.seek(page - first)
                image = _by_pillow(opened, directory)
            except MemoryError:
                raise
            except Exception as error:  # of Pillow's parsers
                raise corrupt(f"{type(error).__name__}: {error}") from None
        yield Decoded(image, "tiff", image.shape[1], image.shape[0])


def _check_data(directory: Directory, layout: tuple[int, int, int], width: int, height: int) -> None:
    """Refuse pixels that lie beyond the file's end, or are stored as they are in too few bytes."""
    if directory.data_end > len(directory.image_bytes):
        raise corrupt("the TIFF's pixels lie beyond its end")
    _, bits, samples = layout
    needed = (width * bits * samples + 7) // 8 * height
    is_subsampled = layout[0] == _YCBCR
    if directory.value(tags.COMPRESSION, 1) == 1 and not is_subsampled and 0 < directory.data_size < needed:
        raise corrupt(f"the TIFF's pixels have {directory.data_size} bytes of {needed}")


def _by_opencv(directory: Directory, layout: tuple[int, int, int]) -> np.ndarray:
    image = imdecode(without_orientation(directory))  # which OpenCV applies to some layouts only
    if image is not None:
        return turn(image, directory.value(tags.ORIENTATION, 1))
    raise corrupt("the TIFF's pixels are damaged or end early") if layout in _OPENCVS else unsupported(_name(directory))


def _by_pillow(opened: Image.Image, directory: Directory) -> np.ndarray:
    """Decode a page; Pillow turns it upright."""
    opened.info.pop("xmp", None)  # Pillow would turn the image by it
    opened.load()
    if opened.mode == "P":
        colors = np.asarray(directory.values(tags.COLOR_MAP), np.uint16)
        if colors.size and colors.max() < 256:  # meant for 8 bits, as libtiff guesses
            table = np.zeros((256, 3), np.uint8)
            table[: colors.size // 3] = colors[: colors.size // 3 * 3].reshape(3, -1).T[:256]
            return table[np.asarray(opened)]
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
        "" if compression in _COMPRESSIONS else f"compression {tags.NAMES_OF_COMPRESSIONS.get(compression, compression)}",
    ]
    return ", ".join(filter(None, words))
