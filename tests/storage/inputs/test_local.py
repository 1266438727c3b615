"""Local folders, globs and files: sorted, streamed, and nothing that could hang."""

from __future__ import annotations

import glob
import os
import shutil
from pathlib import Path

import pytest

from mlcls_ray.errors import Status, UsageError
from mlcls_ray.storage.inputs.local import walk
from tests.storage.inputs.samples import (
    closed,
    entries_of,
    make_folder,
    obeying_permissions,
    status_of,
    uris_of,
    write_tar,
)


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


def names_in(folder: Path, *inputs: object) -> list[str]:
    return [os.path.relpath(uri, folder) for uri in uris_of(*inputs)]


def test_a_folder_that_may_not_be_entered_is_a_row(folder: Path) -> None:
    with closed(folder / "b"):
        assert names_in(folder, folder) == ["a.webp", "b", "c/deep/er/x.tiff"]
        assert status_of(str(folder / "b")) is Status.DENIED


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*/*", ["b"]),
        ("**/*.tiff", ["b", "c/deep/er/x.tiff"]),
        ("[b]/1.*", ["b"]),
        ("?/1.JPG", ["b"]),
        ("*", ["a.webp"]),
    ],
)
def test_a_glob_passes_over_no_folder_in_silence(folder: Path, pattern: str, names: list[str]) -> None:
    with closed(folder / "b"):
        assert names_in(folder, folder / pattern) == names


def test_a_glob_of_archives_or_lists_passes_over_no_folder_in_silence(folder: Path) -> None:
    shard = write_tar(folder / "c" / "x.tar", ["1.jpg"])
    (folder / "c" / "l.txt").write_text("/a.jpg\n")
    with closed(folder / "b"):
        uris = uris_of(folder / "*" / "*.tar")
        assert [uri.partition("?")[0] for uri in uris] == [str(folder / "b"), f"{shard}#1.jpg"]
        with pytest.raises(UsageError, match="b' cannot be read: .*denied"):
            uris_of(folder / "*" / "*.txt")


def test_a_file_that_may_not_be_looked_at_is_a_row(folder: Path) -> None:
    (folder / "b").chmod(0o444)  # its names can be read, and no more
    with obeying_permissions():
        assert names_in(folder, folder / "b") == names_in(folder, folder / "*" / "*") == ["b/1.JPG", "b/2.png"]
    (folder / "b").chmod(0o755)


PATTERNS = (
    "*", "b/*", "*/*", "**", "**/*", "c/**/*.tiff", "[ac]/**/*", "**/deep/**/*.jpg", "**/**/1.JPG", ".h/*", ".*/*.jpg", "b*/?.*",
)  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS)
def test_what_globs_match(folder: Path, pattern: str) -> None:
    """As Python's `glob` does, each path once."""
    for name in ("c/deep/deep/y.jpg", ".h/z.jpg"):
        (folder / name).parent.mkdir()
        (folder / name).touch()
    (folder / "link").symlink_to(folder / "b")
    found = {path for path in glob.glob(f"{folder}/{pattern}", recursive=True) if os.path.isfile(path)}
    uris = uris_of(folder / pattern)
    assert set(uris) == {path for path in found if not path.endswith(".txt")}
    assert len(set(uris)) == len(uris)
    (folder / "c" / "up").symlink_to(folder)
    assert uris_of(folder / pattern) == uris, "no way back"


def test_a_dangling_link_that_a_glob_matches_is_a_row(folder: Path) -> None:
    (folder / "gone.jpg").symlink_to(folder / "nothing")
    assert status_of(uris_of(folder / "gone.*")[0]) is Status.MISSING


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
