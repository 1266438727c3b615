"""`mlcls tag --write exif`: keywords inside images, read back by ExifTool; pixels, times and the metadata of others stay."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlcls_ray.storage.store import Store
from mlcls_ray.table.tags.patch import apply_patch, make_patch
from mlcls_ray.table.tags.selection import Choice
from mlcls_ray.table.tags.tagging import tag
from mlcls_ray.table.tags.undo import undo
from tests.conftest import encode, picture, run_cli
from tests.table.labeled_files import keywords, label_files, read_by_exiftool
from tests.table.test_tags import CLEAN, HOSTILE, HOSTILE_NAMES, listed, make_photo

pytestmark = pytest.mark.skipif(
    shutil.which("exiftool") is None or importlib.util.find_spec("exiftool") is None,
    reason="needs ExifTool and PyExifTool (scripts/test installs them where it may)",
)
KINDS = {"a.jpg": "JPEG", "b.png": "PNG", "c.webp": "WEBP", "d.tif": "TIFF"}


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, kind in KINDS.items():
        (folder / name).write_bytes(encode(picture(320, 240), kind))
        os.utime(folder / name, ns=(10**18 + 1, 10**18 + 1))
    return sorted(folder.iterdir())


def write_by_exiftool(path: Path, *words: str) -> None:
    subprocess.run(["exiftool", "-P", "-overwrite_original", *words, str(path)], check=True, capture_output=True)


def test_each_format(photos: list[Path], tmp_path: Path) -> None:
    before, out = listed(tmp_path / "photos"), tmp_path / "out"
    pixels = {path: np.asarray(Image.open(path)) for path in photos}
    tag(
        label_files(out, {path: {"cat": 0.9, "dog": 0.6, "x" * 65: 0.6} for path in photos}),
        "exif",
        Choice(prefix="auto|"),
    )
    tag(
        label_files(out, {path: {"cat": 0.9, "猫": 0.6, "x" * 65: 0.6} for path in photos}, "two"),
        "exif",
        Choice(prefix="auto|"),
    )
    for path in photos:
        assert keywords(path) == ["cat", "猫", "x" * 65]
        assert keywords(path, "XMP-lr:HierarchicalSubject") == ["auto|cat", "auto|猫", f"auto|{'x' * 65}"]
        assert keywords(path, "IPTC:Keywords") == (["cat", "猫"] if path.suffix in (".jpg", ".tif") else [])
        assert path.stat().st_mtime_ns == 10**18 + 1
        assert np.array_equal(np.asarray(Image.open(path)), pixels[path])
    assert undo(Store(str(out)), None).changed == 4
    assert listed(tmp_path / "photos") == before
    assert {path.stat().st_mtime_ns for path in photos} == {10**18 + 1}


def test_what_others_wrote_stays(photos: list[Path], tmp_path: Path) -> None:
    theirs = ("-XMP-dc:Subject=Cat", "-XMP-dc:Subject=sea", "-EXIF:Artist=me", "-XMP-xmp:Rating=4")
    for path in photos:
        write_by_exiftool(path, *theirs, *(["-IPTC:Keywords=été"] if path.suffix == ".jpg" else []))
    before, out = listed(tmp_path / "photos"), tmp_path / "out"
    metadata = {path: of_others(path) for path in photos}
    tag(label_files(out, {path: {"cat": 0.9, "dog": 0.6, "猫": 0.6} for path in photos}), "exif", Choice())
    for path in photos:
        assert keywords(path) == ["Cat", "sea", "dog", "猫"]
        assert of_others(path) == metadata[path]
    latin = subprocess.run(["exiftool", "-s3", "-IPTC:Keywords", str(photos[0])], capture_output=True, text=True)
    assert latin.stdout.strip() == "été, cat, dog"  # 猫 is not in the character set that their IPTC has
    write_by_exiftool(photos[0], "-XMP-dc:Subject+=later")
    undo(Store(str(out)), "exif")
    assert keywords(photos[0]) == ["Cat", "sea", "later"]
    now = listed(tmp_path / "photos")
    assert {name: now[name] for name in now if name != "a.jpg"} == {
        name: before[name] for name in now if name != "a.jpg"
    }


def of_others(path: Path) -> dict[str, object]:
    names = ("XMP-xmp:Rating", "IFD0:Artist", "File:ImageWidth")
    return {name: value for name, value in read_by_exiftool(path).items() if name in names}


def test_hostile_names_and_labels(tmp_path: Path) -> None:
    paths = [make_photo(tmp_path / "photos" / name) for name in HOSTILE_NAMES]
    before, out = listed(tmp_path / "photos"), tmp_path / "out"
    tag(label_files(out, {path: dict.fromkeys(HOSTILE, 0.9) for path in paths}), "exif", Choice())
    for path in paths:
        copy = tmp_path / "copy.jpg"
        copy.write_bytes(path.read_bytes())
        assert [str(word) for word in keywords(copy)] == CLEAN
    undo(Store(str(out)), None)
    assert listed(tmp_path / "photos") == before


def test_what_is_left_alone(tmp_path: Path) -> None:
    good, raw = make_photo(tmp_path / "photos" / "a.jpg"), make_photo(tmp_path / "photos" / "b.nef")
    liar, cut = make_photo(tmp_path / "photos" / "c.jpg"), make_photo(tmp_path / "photos" / "d.jpg")
    liar.write_bytes(encode(picture(), "GIF"))
    cut.write_bytes(cut.read_bytes()[:400])
    before = listed(tmp_path / "photos")
    summary = tag(
        label_files(tmp_path / "out", {path: {"cat": 0.9} for path in (good, raw, liar, cut)}), "exif", Choice()
    )
    assert (summary.changed, summary.failed) == (1, 3)
    assert [
        "not in '.nef'" in summary.failures[0],
        "first bytes" in summary.failures[1],
        "ExifTool: Error" in summary.failures[2],
    ] == [True] * 3
    after = listed(tmp_path / "photos")
    assert {name for name in before if after[name] != before[name]} == {"a.jpg"}


def test_links_are_followed(tmp_path: Path) -> None:
    photo = make_photo(tmp_path / "photos" / "a.jpg")
    link = tmp_path / "link.jpg"
    link.symlink_to(photo)
    tag(label_files(tmp_path / "out", {link: {"cat": 0.9}}), "exif", Choice())
    assert link.is_symlink()
    assert keywords(photo) == ["cat"]


def test_without_exiftool_there_is_a_hint(tmp_path: Path) -> None:
    label_files(tmp_path / "out", {make_photo(tmp_path / "photos" / "a.jpg"): {"cat": 0.9}})
    done = run_cli("tag", tmp_path / "out", "--write", "exif", check=2, env={"PATH": str(tmp_path)})
    assert "needs ExifTool" in done.stderr
    assert "--write xmp needs neither" in done.stderr


def test_patches() -> None:
    random = np.random.default_rng(0)
    before = random.bytes(500_000)
    after = before[:4] + b"1234" + before[8:5000] + b"inserted" * 900 + before[5000:400_000] + before[400_100:]
    patch = make_patch(before, after)
    assert patch is not None
    assert len(patch) < 1000
    assert apply_patch(after, patch) == before
    assert make_patch(before, random.bytes(500_000)) is None
    for short in (b"", b"a", b"cat, dog\n"):
        assert apply_patch(b"cat\n", make_patch(short, b"cat\n") or b"") == short
