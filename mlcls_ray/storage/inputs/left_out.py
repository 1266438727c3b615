"""The files that a listing leaves out because of their names, by suffix: whoever has photos in HEIC must learn that none was read."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Mapping

from mlcls_ray.images.decoded import install_hint
from mlcls_ray.images.formats import READERS

MOST_SUFFIXES = 100
"""Different suffixes that are counted; files of any other one are counted together."""
NO_SUFFIX, OTHERS = "without a suffix", "others"
PICTURES = frozenset(
    (
        ".heic", ".heif", ".hif", ".jxl", ".jp2", ".j2k", ".jpx", ".jxr", ".svg", ".psd", ".psb", ".xcf", ".pdf", ".eps", ".ai",
        ".ico", ".tga", ".exr", ".hdr", ".dds", ".qoi", ".dcm", ".dng", ".raw", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw",
        ".srf", ".sr2", ".orf", ".rw2", ".raf", ".pef", ".srw", ".rwl", ".3fr", ".iiq", ".x3f", ".gpr", ".mov", ".mp4", ".m4v",
        ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".mts", ".m2ts", ".wmv", ".flv", ".3gp", ".insp", ".insv", ".lrv",
    )
)  # fmt: skip
"""Suffixes of pictures and videos that are not read, or not without an extra. They are named before text files and the like."""
_SUFFIX = re.compile(r"\.(?=[0-9]*[a-z])[a-z0-9]{1,8}")


class LeftOut:
    """Counts the files that a listing leaves out, by suffix. Memory is bounded, whatever the names are."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def add(self, name: str) -> None:
        """Count a file that is left out, by its name or path. Hidden files are nobody's pictures, and are not counted."""
        base = name.rpartition("/")[2]
        if base.startswith("."):
            return
        suffix = os.path.splitext(base)[1].lower() or NO_SUFFIX
        if suffix != NO_SUFFIX and not _SUFFIX.fullmatch(suffix):
            suffix = OTHERS
        if suffix not in self.counts and len(self.counts) >= MOST_SUFFIXES:
            suffix = OTHERS
        self.counts[suffix] += 1


def name_extras(suffixes: Collection[str]) -> str:
    """Tell which extras read files that were left out: ``.heic by pip install 'mlcls-ray[heic]'``; empty where none does."""
    lacking = [reader for reader in READERS if reader.extra and not reader.is_installed]
    named = [
        f"{', '.join(found)} by {install_hint(reader.extra)}"
        for reader in lacking
        if (found := [suffix for suffix in reader.suffixes if suffix in suffixes])
    ]
    return "; ".join(named)


def name_left_out(counts: Mapping[str, int], most: int = 8) -> str:
    """Name the suffixes that were left out, pictures and videos first: ``2 .heic, 1 .mov, 40 .txt``."""
    order = sorted(counts, key=lambda suffix: (suffix not in PICTURES, -counts[suffix], suffix))
    named = ", ".join(f"{counts[suffix]:,} {suffix}" for suffix in order[:most])
    rest = sum(counts[suffix] for suffix in order[most:])
    return named + (f" and {rest:,} other files" if rest else "")
