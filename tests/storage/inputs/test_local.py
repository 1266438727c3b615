"""Local folders, globs and files: sorted, streamed, and nothing that could hang."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from mlcls_ray.errors import Status, UsageError
from mlcls_ray.storage.inputs.local import walk
from tests.storage.inputs.samples import entries_of, make_folder, status_of, uris_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path)


def test_a_folder_is_searched_for_image_suffixes(folder: Path) -> None:
    names = [os.path.relpath(uri, folder) for uri in uris_of(folder)]
    assert names == ["a.webp", "b/1.JPG", "b/2.png", "c/deep/er/x.tiff"]


def test_entries_have_size_and_time(folder: Path) -> None:
    entry = entries_of(folder)[0]
    assert entry.size_bytes == 7
    assert entry.mtime is not None
    assert abs(entry.mtime.timestamp() - (folder / "a.webp").stat().st_mtime) < 1e-3


def test_globs_files_and_overlaps(folder: Path) -> None:
    assert len(uris_of(folder / "b" / "*")) == 2
    assert len(uris_of(folder / "**" / "*.tiff")) == 1
    assert len(uris_of(folder / "a.webp", folder / "a.webp")) == 2
    with pytest.raises(UsageError, match="matches no file"):
        uris_of(folder / "*.bmp")


def test_a_file_with_a_wildcard_in_its_name_is_itself(folder: Path) -> None:
    (folder / "a[1].jpg").write_bytes(b"x")
    assert uris_of(folder / "a[1].jpg") == [str(folder / "a[1].jpg")]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may enter every folder")
def test_a_folder_that_may_not_be_entered_is_a_row(folder: Path) -> None:
    (folder / "b").chmod(0)
    try:
        uris = uris_of(folder)
        assert [os.path.relpath(uri, folder) for uri in uris] == ["a.webp", "b", "c/deep/er/x.tiff"]
        assert status_of(uris[1]) is Status.DENIED
    finally:
        (folder / "b").chmod(0o755)


def test_a_folder_that_goes_while_it_is_listed_is_a_row(folder: Path) -> None:
    entries = walk(str(folder))
    next(entries)  # the folder's names are read
    shutil.rmtree(folder / "b")
    uris = [entry.uri for entry in entries]
    assert [os.path.relpath(uri, folder) for uri in uris] == ["b", "c/deep/er/x.tiff"]
    assert status_of(uris[0]) is Status.MISSING


def test_what_could_hang_or_loop_is_left_out(folder: Path) -> None:
    os.mkfifo(folder / "fifo.jpg")
    (folder / "dir.jpg").mkdir()
    (folder / "loop").symlink_to(folder)
    (folder / "self.jpg").symlink_to(folder / "self.jpg")
    (folder / "link.jpg").symlink_to(folder / "a.webp")
    names = {os.path.relpath(uri, folder) for uri in uris_of(folder)}
    assert names == {"a.webp", "b/1.JPG", "b/2.png", "c/deep/er/x.tiff", "self.jpg", "link.jpg"}


def test_a_very_large_folder_is_not_held_in_memory(tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / f"{number:02d}.jpg").touch()
    names = [os.path.basename(entry.uri) for entry in walk(str(tmp_path), sorted_entries=5)]
    assert sorted(names) == [f"{number:02d}.jpg" for number in range(12)]
    assert names[:5] == sorted(names[:5])
