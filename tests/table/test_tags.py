"""`mlcls tag`: labels as keywords in sidecars, captions and a table; and what stays as it was."""

from __future__ import annotations

import csv
import os
import subprocess
from pathlib import Path

import pytest

from mlcls_ray.errors import LeaseError, RunError, UsageError
from mlcls_ray.storage.lease import held_lease
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout
from mlcls_ray.table.tags.csv import tag_in_csv
from mlcls_ray.table.tags.selection import Choice
from mlcls_ray.table.tags.tagging import tag
from mlcls_ray.table.tags.undo import undo
from tests.conftest import encode, picture, run_cli
from tests.table.labeled_files import keywords, label_files, read_by_exiftool

DARKTABLE = """<?xml version='1.0' encoding="UTF-8"?>
<!-- edits of a program: keep -->
<x:xmpmeta xmlns:x='adobe:ns:meta/'>
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:darktable="http://darktable.sf.net/"
    xmlns:dc="http://purl.org/dc/elements/1.1/"
   xmp:Rating="4" darktable:xmp_version='5'>
   <darktable:history><rdf:Seq><rdf:li darktable:operation="exposure" darktable:params="00&#10;a"/></rdf:Seq></darktable:history>
   <dc:subject>
    <rdf:Bag>
     <rdf:li>Holiday</rdf:li>
     <rdf:li>Cat</rdf:li>
    </rdf:Bag>
   </dc:subject>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
"""
HOSTILE = [
    "-delete",
    "@args",
    "a\nb\x1b[2J",
    '<&">]]>',
    "$(touch x)",
    "  ",
    "=1+1",
    "#c",
    "猫|犬",
    "a,b;c",
    "True",
    "1e5",
]
CLEAN = ["-delete", "@args", "a b [2J", '<&">]]>', "$(touch x)", "=1+1", "#c", "猫|犬", "a,b;c", "True", "1e5"]
HOSTILE_NAMES = ("-o.jpg", "@x.jpg", "a\nb.jpg", "<&\"'>.jpg", os.fsdecode(b"\xe9t\xe9.jpg"), "$(x);.jpg")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    return make_photo(tmp_path / "photos" / "a.jpg")


def make_photo(path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(encode(picture()))
    os.utime(path, ns=(10**18 + 1, 10**18 + 1))
    return path


def listed(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_sidecars_are_written_replaced_and_taken_back(photo: Path, tmp_path: Path) -> None:
    before, out = listed(photo.parent), tmp_path / "out"
    sidecar = photo.with_name("a.jpg.xmp")
    table = label_files(out, {photo: {"cat": 0.9, "dog": 0.6}})
    assert tag(table, "xmp", Choice(prefix="auto|")).changed == 1
    assert keywords(sidecar) == ["cat", "dog"]
    assert keywords(sidecar, "XMP-lr:HierarchicalSubject") == ["auto|cat", "auto|dog"]
    assert tag(table, "xmp", Choice(prefix="auto|")).unchanged == 1
    relabeled = label_files(out, {photo: {"bird": 0.9, "cat": 0.8}}, "two")
    tag(relabeled, "xmp", Choice())
    assert keywords(sidecar) == keywords(sidecar, "XMP-lr:HierarchicalSubject") == ["bird", "cat"]
    assert photo.stat().st_mtime_ns == 10**18 + 1
    assert undo(Store(str(out)), None).changed == 1
    assert listed(photo.parent) == before
    assert undo(Store(str(out)), None).changed == 0
    tag(relabeled, "xmp", Choice())
    tag(label_files(out, {photo: {}}, "three"), "xmp", Choice())  # no label is left
    assert listed(photo.parent) == before


@pytest.mark.parametrize("name", ["a.jpg.xmp", "a.xmp"])
def test_a_sidecar_of_another_program_keeps_everything(photo: Path, tmp_path: Path, name: str) -> None:
    sidecar, out = photo.with_name(name), tmp_path / "out"
    sidecar.write_text(DARKTABLE)
    sidecar.chmod(0o640)
    tag(label_files(out, {photo: {"cat": 0.9, "dog": 0.6}}), "xmp", Choice())
    assert keywords(sidecar) == ["Holiday", "Cat", "dog"]  # `Cat` was theirs
    assert keywords(sidecar, "XMP-lr:HierarchicalSubject") == ["cat", "dog"]
    written = sidecar.read_text()
    kept = iter(written.splitlines())
    assert all(any(line == other for other in kept) for line in DARKTABLE.splitlines()), written
    assert sidecar.stat().st_mode & 0o777 == 0o640
    rated = written.replace('Rating="4"', 'Rating="5"').replace("</rdf:Bag>", "<rdf:li>mine</rdf:li></rdf:Bag>", 1)
    sidecar.write_text(rated)
    tag(label_files(out, {photo: {"bird": 0.9}}, "two"), "xmp", Choice())
    assert keywords(sidecar) == ["Holiday", "Cat", "mine", "bird"]
    undo(Store(str(out)), "xmp")
    assert read_by_exiftool(sidecar)["XMP-xmp:Rating"] == "5"
    assert keywords(sidecar) == ["Holiday", "Cat", "mine"]
    assert "lr:" not in sidecar.read_text()
    assert sorted(listed(photo.parent)) == sorted(["a.jpg", name])


def test_what_was_there_comes_back_to_the_byte(photo: Path, tmp_path: Path) -> None:
    photo.with_name("a.jpg.xmp").write_text(DARKTABLE)
    photo.with_name("a.txt").write_text("a photo, cat\n")
    before, out = listed(photo.parent), tmp_path / "out"
    for run_id, labels in (("one", {"cat": 0.9, "dog": 0.6}), ("two", {"bird": 0.9})):
        table = label_files(out, {photo: labels}, run_id)
        for kind in ("xmp", "txt"):
            assert tag(table, kind, Choice()).changed == 1
    assert photo.with_name("a.txt").read_text() == "a photo, cat, bird\n"
    undo(Store(str(out)), None)
    assert listed(photo.parent) == before


@pytest.mark.parametrize(
    ("kind", "name", "content", "reason"),
    [
        ("xmp", "a.jpg.xmp", "<xml/>", "has no rdf:RDF"),
        ("xmp", "a.jpg.xmp", "not XML", "is not XMP"),
        ("xmp", "a.jpg.xmp", '<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "declares a document type"),
        ("xmp", "a.jpg.xmp", DARKTABLE.replace("rdf:Bag", "rdf:Other"), "not a list of keywords"),
        ("txt", "a.txt", "0 0.5 0.5 0.25 0.25\n", "boxes of YOLO"),
        ("txt", "a.txt", "Dear diary,\ntoday\n", "several lines"),
    ],
)
def test_a_file_of_another_program_is_left_alone(
    photo: Path, tmp_path: Path, kind: str, name: str, content: str, reason: str
) -> None:
    photo.with_name(name).write_text(content)
    before, other = listed(photo.parent), make_photo(tmp_path / "others" / "b.jpg")
    summary = tag(label_files(tmp_path / "out", {photo: {"cat": 0.9}, other: {"cat": 0.9}}), kind, Choice())
    with pytest.raises(RunError, match=rf"1 images could not be tagged: .*a\.jpg: .*{reason}"):
        summary.raise_failures("images could not be tagged")
    assert summary.changed == 1
    assert listed(photo.parent) == before


def test_hostile_names_and_labels(tmp_path: Path) -> None:
    photos = [make_photo(tmp_path / "photos" / name) for name in HOSTILE_NAMES]
    before, out = listed(tmp_path / "photos"), tmp_path / "out"
    table = label_files(out, {photo: dict.fromkeys(HOSTILE, 0.9) for photo in photos})
    tag(table, "xmp", Choice())
    for photo in photos:
        sidecar = photo.with_name(f"{photo.name}.xmp")
        copy = tmp_path / "copy.xmp"
        copy.write_bytes(sidecar.read_bytes())
        assert [str(word) for word in keywords(copy)] == CLEAN
    assert "猫/犬" in keywords(copy, "XMP-lr:HierarchicalSubject")
    shown = run_cli("tag", out, "--undo", "--dry-run").stdout
    assert "\x1b" not in shown
    assert len(shown.splitlines()) == len(photos)
    undo(Store(str(out)), None)
    tag(table, "txt", Choice())
    assert "a b;c" in photos[0].with_suffix(".txt").read_text().split(", ")
    undo(Store(str(out)), None)
    assert listed(tmp_path / "photos") == before


def test_two_images_share_a_caption(photo: Path, tmp_path: Path) -> None:
    other = photo.with_suffix(".png")
    other.write_bytes(encode(picture(), "PNG"))
    before, out = listed(photo.parent), tmp_path / "out"
    tag(label_files(out, {photo: {"cat": 0.9}, other: {"dog": 0.8}}), "txt", Choice())
    assert photo.with_suffix(".txt").read_text() == "cat, dog\n"
    tag(label_files(out, {photo: {"bird": 0.9}, other: {"dog": 0.8}}, "two"), "txt", Choice())
    assert photo.with_suffix(".txt").read_text() == "dog, bird\n"
    undo(Store(str(out)), None)
    assert listed(photo.parent) == before


def test_the_command(photo: Path, tmp_path: Path) -> None:
    out, gone = tmp_path / "out", photo.with_name("moved.jpg")
    uris = {
        photo: {"cat": 0.9, "dog": 0.6},
        gone: {"cat": 0.9},
        "https://u:secret@host/a.jpg": {"cat": 0.9},
        "/a.tar#b.jpg": {"cat": 0.9},
    }
    label_files(out, uris)
    before = listed(tmp_path)
    shown = run_cli("tag", out, "--write", "xmp", "--dry-run", check=1)
    assert shown.stdout == f"{photo}.xmp: +cat, +dog\n"
    assert listed(tmp_path) == before
    done = run_cli("tag", out, "--write", "xmp", "--min-score", 0.7, "--label", "cat", "--label", "dog", check=1)
    assert "1 files written" in done.stderr
    assert "3 image(s) could not be tagged" in done.stderr
    assert all(part in done.stderr for part in ("was moved", "not on this machine", "part of another file"))
    assert "secret" not in done.stderr
    assert "<rdf:li>cat</rdf:li>" in photo.with_name("a.jpg.xmp").read_text()
    assert "dog" not in photo.with_name("a.jpg.xmp").read_text()
    assert "did you mean 'cat'" in run_cli("tag", out, "--write", "xmp", "--label", "cot", check=2).stderr
    assert "--write xmp" in run_cli("tag", out, check=2).stderr
    assert "--undo takes back all" in run_cli("tag", out, "--undo", "--prefix", "a", check=2).stderr
    assert "1 files taken back" in run_cli("tag", out, "--undo").stderr
    assert sorted(listed(photo.parent)) == ["a.jpg"]


def test_a_table_of_keywords(photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    table = label_files(out, {photo: {"cat": 0.9, "=1+1": 0.6}, "s3://bucket/b.jpg": {"cat": 0.9}})
    path, count = tag_in_csv(table, None, Choice(prefix="auto|"))
    assert (path, count) == (out / "tags.csv", 2)
    with path.open(newline="") as stream:
        rows = list(csv.reader(stream))
    assert rows[1] == [str(photo), "cat;=1+1", "auto|cat;auto|=1+1"]
    assert rows[2][0] == "s3://bucket/b.jpg"
    tag_in_csv(table, None, Choice())
    read_by_exiftool(photo)
    subprocess.run(
        ["exiftool", f"-csv={path}", "-sep", ";", "-overwrite_original", photo], check=True, capture_output=True
    )
    assert keywords(photo) == ["cat", "=1+1"]
    undo(Store(str(out)), None)
    assert not path.exists()
    path.write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        tag_in_csv(table, None, Choice())


def test_a_full_disk_loses_nothing(small_disk: Path, tmp_path: Path) -> None:
    photos = [make_photo(small_disk / "photos" / f"{number:03d}.jpg") for number in range(150)]
    before, out = listed(small_disk), tmp_path / "out"
    table = label_files(out, {photo: {"cat": 0.9} for photo in photos})
    filler = small_disk / "filler"
    free = os.statvfs(small_disk)
    filler.write_bytes(bytes(free.f_bavail * free.f_frsize - 200_000))
    filled = filler.read_bytes()
    with pytest.raises(RunError, match=r"no space is left for .*photos'\. \d+ files are written and recorded"):
        tag(table, "xmp", Choice())
    written = len(listed(small_disk)) - len(before) - 1
    assert 0 < written < 150
    assert {name: data for name, data in listed(small_disk).items() if not name.endswith(".xmp")} == {
        **before,
        "filler": filled,
    }
    filler.unlink()
    assert tag(table, "xmp", Choice()).unchanged == written
    undo(Store(str(out)), None)
    assert listed(small_disk) == before


def test_a_read_only_folder(small_disk: Path, tmp_path: Path) -> None:
    photo, other = make_photo(small_disk / "photos" / "a.jpg"), make_photo(tmp_path / "b.jpg")
    table = label_files(tmp_path / "out", {photo: {"cat": 0.9}, other: {"cat": 0.9}})
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    summary = tag(table, "xmp", Choice())
    assert (summary.changed, summary.failed) == (1, 1)
    assert "Read-only file system" in summary.failures[0]
    assert undo(Store(str(tmp_path / "out")), None).failed == 0
    assert not other.with_name("b.jpg.xmp").exists()


def test_only_one_writes_tags(photo: Path, tmp_path: Path) -> None:
    table = label_files(tmp_path / "out", {photo: {"cat": 0.9}})
    with held_lease(table.store, layout.TAGS_LEASE, "tags"), pytest.raises(LeaseError):
        tag(table, "xmp", Choice())
