"""Damaged HEIC, JPEG XL, JPEG 2000, camera RAW and documents: an image or an ImageError, and never the end of the process."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hostile_formats import format_files

from mlcls_ray.errors import ImageError
from mlcls_ray.images.decode import decode
from mlcls_ray.images.formats import find_pages
from tests.conftest import ROOT

FILES = {name.decode(): data for name, (data, status) in format_files().items() if status == "ok"}


def damaged(data: bytes, chance: np.random.Generator) -> bytes:
    """Change, delete or repeat some bytes, more often near the start, where the headers are."""
    changed = bytearray(data)
    for _ in range(chance.integers(1, 5)):
        end = len(changed) if chance.integers(2) else min(len(changed), 600)
        start, length = int(chance.integers(end)), int(chance.integers(1, 12))
        kind = chance.integers(4)
        if kind == 0:
            changed[start : start + length] = chance.bytes(length)
        elif kind == 1:
            del changed[start : start + length]
        elif kind == 2:
            changed[start:start] = changed[start : start + length]
        else:
            changed[start] = int(chance.choice([0, 1, 127, 128, 255]))
    return bytes(changed)


def try_all(name: str, data: bytes) -> None:
    try:
        image = decode(data, max_pixels=1_000_000).image
        assert image.dtype == np.uint8
        assert image.ndim == 3
        assert image.shape[2] == 3
    except ImageError as error:
        assert str(error)
    if name.startswith("good/document"):
        try:
            pages = find_pages(data)
            for number in pages.numbers(data)[:4]:
                pages.take(data, number)
        except ImageError:
            pass


@pytest.mark.parametrize("name", sorted(FILES))
def test_some_damaged_files(name: str) -> None:
    chance = np.random.default_rng(1)
    for _ in range(60):
        try_all(name, damaged(FILES[name], chance))


SLOW = """
import sys
import numpy as np
from tests.images.test_damaged_formats import FILES, damaged, try_all
name, seed, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
for number in range(count):
    chance = np.random.default_rng([seed, number])
    data = damaged(FILES[name], chance)
    print(number, file=sys.stderr, flush=True)
    try_all(name, data)
"""


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("name", sorted(FILES))
def test_many_damaged_files(name: str) -> None:
    """In a process of its own, so that the end of a native library names the file: `damaged` with the last number printed."""
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'scripts'}"}
    command = [sys.executable, "-c", SLOW, name, "7", "4000"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 0, f"{name}, {done.returncode}: {done.stderr[-2000:]}"
