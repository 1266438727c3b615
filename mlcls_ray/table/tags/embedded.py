"""Keywords inside image files, written by ExifTool: XMP in all of them, IPTC too in JPEG and TIFF.

ExifTool and not Exiv2, which damages what it does not know, such as the depth maps of phones (exiv2#2150). It works on a copy with a name
of ours in a folder of ours: names and folders of strangers never reach its command line.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlcls_ray.errors import UsageError
from mlcls_ray.table.tags.keywords import Added, Keywords, LeftAloneError, Tagger, missing

if TYPE_CHECKING:
    from exiftool import ExifTool

SUBJECT, HIERARCHICAL, IPTC, CHARSET, DIGEST = (
    "XMP-dc:Subject",
    "XMP-lr:HierarchicalSubject",
    "IPTC:Keywords",
    "IPTC:CodedCharacterSet",
    "Photoshop:IPTCDigest",
)
SIGNATURES = {
    "jpeg": (b"\xff\xd8\xff", (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo")),
    "png": (b"\x89PNG\r\n\x1a\n", (".png", ".apng")),
    "webp": (b"RIFF", (".webp",)),
    "tiff": (b"II*\0", (".tif", ".tiff")),
    "tiff (big-endian)": (b"MM\0*", (".tif", ".tiff")),
}
"""Each format's first bytes and suffixes. Both must fit: most camera RAW files begin as TIFF does, and are not for us to write."""
SUFFIXES = tuple(sorted({suffix for _, suffixes in SIGNATURES.values() for suffix in suffixes}))
WITH_IPTC = (".jpg", ".tif")
IPTC_BYTES = 64
"""The longest keyword that IPTC allows, in bytes."""
IPTC_LATIN = "cp1252"
"""The character set that ExifTool assumes of IPTC that does not name its own."""
HINT = (
    "--write exif needs ExifTool (on Debian: apt-get install libimage-exiftool-perl) and PyExifTool (pip install 'mlcls-ray[tag]'); "
    "--write xmp needs neither, and writes sidecars"
)


NOT_WRITTEN = "keywords are written into JPEG, PNG, WebP and TIFF only"


@contextmanager
def embedded_tagger() -> Iterator[Tagger]:
    """Start ExifTool, for keywords in image files.

    Raises:
        UsageError: ExifTool or PyExifTool is not installed.
    """
    try:
        from exiftool import ExifTool
    except ImportError:
        raise UsageError(HINT) from None
    if shutil.which("exiftool") is None:
        raise UsageError(HINT)
    with (
        tempfile.TemporaryDirectory(prefix="mlcls-") as folder,
        # Without its configuration file, which is a program.
        ExifTool(config_file="", common_args=["-G1"], encoding="utf-8") as tool,
    ):
        embedded = _Embedded(tool, Path(folder))
        yield Tagger(_check_suffix, embedded.add, embedded.remove, keeps_mtime=True)


class _Embedded:
    """Writes keywords into the bytes of an image, by an ExifTool that stays open."""

    def __init__(self, tool: ExifTool, folder: Path) -> None:
        self.tool = tool
        self.folder = folder

    def add(self, before: bytes | None, keywords: Keywords) -> tuple[bytes, Added]:
        """Add keywords to an image.

        Raises:
            LeftAloneError: another format, or ExifTool finds the file damaged.
        """
        assert before is not None
        path = self._copy(before)
        tags = self._read(path)
        added = Added(
            subject=missing(keywords.flat, _words(tags, SUBJECT)),
            hierarchical=missing(keywords.hierarchical, _words(tags, HIERARCHICAL)),
            iptc=_for_iptc(path, tags, missing(keywords.flat, _words(tags, IPTC))),
        )
        if added == Added():
            return before, added
        return self._change(path, tags, added, "+="), added

    def remove(self, data: bytes, added: Added) -> bytes:
        """Take keywords out of an image.

        Raises:
            LeftAloneError: another format, or ExifTool finds the file damaged.
        """
        path = self._copy(data)
        return self._change(path, self._read(path), added, "-=")

    def _copy(self, image_bytes: bytes) -> Path:
        suffix = next((end[0] for start, end in SIGNATURES.values() if image_bytes.startswith(start)), None)
        if suffix is None:
            raise LeftAloneError(f"{NOT_WRITTEN}, and its first bytes are of none; --write xmp makes sidecars")
        path = self.folder / f"image{suffix}"
        path.write_bytes(image_bytes)
        return path

    def _read(self, path: Path) -> dict[str, Any]:
        names = (SUBJECT, HIERARCHICAL, IPTC, CHARSET, DIGEST)
        text = self._run("-j", *(f"-{name}" for name in names), "-IPTC:all", path=path)
        (tags,) = json.loads(text, parse_float=str, parse_int=str)  # a keyword such as 1e5 is written like a number
        return dict(tags)

    def _change(self, path: Path, tags: dict[str, Any], added: Added, operator: str) -> bytes:
        has_iptc = any(name.startswith("IPTC:") for name in tags)
        words = [
            f"-{name}{operator}{word}"
            for name, keywords in ((SUBJECT, added.subject), (HIERARCHICAL, added.hierarchical), (IPTC, added.iptc))
            for word in keywords
        ]
        if not words:
            return path.read_bytes()
        if added.iptc and not has_iptc:
            words.append(f"-{CHARSET}=UTF8")
        if added.iptc and DIGEST in tags:
            words.append(f"-{DIGEST}=new")  # else readers take the keywords for out of date
        self._run("-overwrite_original", *words, path=path)
        return path.read_bytes()

    def _run(self, *words: str, path: Path) -> str:
        output = str(self.tool.execute(*words, str(path)))
        if self.tool.last_status != 0:
            message = str(self.tool.last_stderr).partition(" - ")[0].strip()
            raise LeftAloneError(f"ExifTool: {message or 'the file cannot be read'}")
        return output


def _check_suffix(image: Path) -> Path:
    if image.suffix.lower() not in SUFFIXES:
        raise LeftAloneError(f"{NOT_WRITTEN}, and not in '{image.suffix}'; --write xmp makes sidecars")
    return image


def _words(tags: dict[str, Any], name: str) -> Sequence[str]:
    value = tags.get(name, [])
    return value if isinstance(value, list) else [value]


def _for_iptc(path: Path, tags: dict[str, Any], words: Sequence[str]) -> tuple[str, ...]:
    """Return the keywords that IPTC can hold: short ones, in the character set that the file's IPTC has already."""
    if path.suffix not in WITH_IPTC:
        return ()
    is_latin = any(name.startswith("IPTC:") for name in tags) and tags.get(CHARSET) != "UTF8"
    return tuple(
        word
        for word in words
        if len(word.encode()) <= IPTC_BYTES
        and (not is_latin or word.encode(IPTC_LATIN, "ignore").decode(IPTC_LATIN) == word)
    )
