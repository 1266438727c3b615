"""Without an extra its files are `unsupported` with the way out, and are not listed; with it, nothing of Pillow's changes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hostile_formats import format_files

from mlcls_ray.images.formats import READERS, SUFFIXES
from tests.conftest import ROOT

EXTRAS = {reader.extra: reader.package for reader in READERS if reader.extra}

LACKING = """
import sys
for package in {packages}:
    sys.modules[package] = None  # as if it were not installed
from pathlib import Path
from mlcls_ray.config import S3Options
from mlcls_ray.errors import ImageError
from mlcls_ray.images.decode import decode
from mlcls_ray.images.formats import SUFFIXES
from mlcls_ray.storage.inputs.left_out import LeftOut, name_extras
from mlcls_ray.storage.inputs.listing import list_inputs
left_out = LeftOut()
print([Path(entry.uri).name for entry in list_inputs([sys.argv[1]], S3Options(), left_out=left_out)])
print(name_extras(left_out.counts))
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        decode(path.read_bytes())
        print(path.name, "ok")
    except ImageError as error:
        print(path.name, error.status, error)
"""


def test_without_the_extras(tmp_path: Path) -> None:
    files = {
        name.decode().rpartition("/")[2]: data for name, (data, status) in format_files().items() if status == "ok"
    }
    for name in ("phone.heic", "lossy.jxl", "camera.dng", "document.pdf", "scan.jp2"):
        (tmp_path / name).write_bytes(files[name])
    (tmp_path / "notes.txt").write_text("no image")
    code = LACKING.format(packages=[*EXTRAS.values()])
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.splitlines() == [
        "['scan.jp2']",
        ".heic by pip install 'mlcls-ray[heic]'; .dng by pip install 'mlcls-ray[raw]'; .jxl by pip install 'mlcls-ray[jxl]'; "
        ".pdf by pip install 'mlcls-ray[pdf]'",
        "camera.dng unsupported camera RAW needs the extra 'raw': pip install 'mlcls-ray[raw]'",
        "document.pdf unsupported PDF needs the extra 'pdf': pip install 'mlcls-ray[pdf]'",
        "lossy.jxl unsupported JPEG XL needs the extra 'jxl': pip install 'mlcls-ray[jxl]'",
        "notes.txt not_an_image starts with b'no image'",
        "phone.heic unsupported HEIC/HEIF needs the extra 'heic': pip install 'mlcls-ray[heic]'",
        "scan.jp2 ok",
    ]


def test_pillow_stays_as_it_is() -> None:
    """The user's own `Image.open` must not learn formats because of us."""
    code = """
from PIL import Image
Image.init()
before = set(Image.OPEN)
from hostile_formats import format_files
from mlcls_ray.images.decode import decode
for name, (data, status) in format_files().items():
    if status == "ok":
        decode(data)
assert set(Image.OPEN) == before, set(Image.OPEN) - before
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT / "scripts", env={"PYTHONPATH": str(ROOT)})


def test_each_extra_is_in_pyproject() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    assert set(EXTRAS) == {"heic", "jxl", "raw", "pdf"}
    for extra in EXTRAS:
        assert f"\n{extra} = [" in text


@pytest.mark.parametrize("suffix", [".heic", ".jxl", ".jp2", ".dng", ".cr3", ".pdf", ".tif", ".png"])
def test_with_the_extras_the_suffixes_are_listed(suffix: str) -> None:
    assert suffix in SUFFIXES
