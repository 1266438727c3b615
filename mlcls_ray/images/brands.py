"""The brands of the ISO base media format, by what they stand for."""

from __future__ import annotations

from mlcls_ray.images.boxes import brands_of

HEIF, RAW, AVIF, JXS, OTHER = "HEIC/HEIF", "camera RAW", "AVIF", "JPEG XS", "other"
_AVIF = {b"avif", b"avis"}
_BRANDS = {
    HEIF: {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"mif2", b"msf1", b"miaf"},
    RAW: {b"crx "},
    JXS: {b"jxs "},
}  # fmt: skip
_LOOKED_AT = 1024


def name_of_brands(image_bytes: bytes) -> str | None:
    """Name the format that the brands at a file's start stand for, `OTHER` for a video or a sound; None if it has no brands."""
    found = brands_of(image_bytes[:_LOOKED_AT])
    if found is None:
        return None
    major, brands = found
    if major in _AVIF or (brands & _AVIF and major in _BRANDS[HEIF]):
        return AVIF
    by_major = next((name for name, known in _BRANDS.items() if major in known), None)
    return by_major or next((name for name, known in _BRANDS.items() if brands & known), OTHER)
