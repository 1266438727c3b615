"""Files that a listing leaves out are counted by suffix: in folders, globs, archives and buckets."""

from __future__ import annotations

from pathlib import Path

from mlcls_ray.storage.inputs.left_out import MOST_SUFFIXES, NO_SUFFIX, OTHERS, LeftOut, name_left_out
from tests.storage.inputs.samples import left_out_of, write_tar


def test_in_folders_globs_and_archives(tmp_path: Path) -> None:
    folder = tmp_path / "phone"
    names = ("1.PSD", "2.psd", "3.SVG", "clip.MOV", "a/notes.txt", "README", "4.jpg", ".DS_Store", ".hidden.psd")
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    by_suffix = {".psd": 2, ".svg": 1, ".mov": 1, ".txt": 1, NO_SUFFIX: 1}
    assert left_out_of(folder) == by_suffix
    assert left_out_of(folder, folder) == {suffix: 2 * count for suffix, count in by_suffix.items()}
    assert left_out_of(f"{folder}/*") == {".psd": 2, ".svg": 1, ".mov": 1, NO_SUFFIX: 1}
    assert left_out_of(write_tar(tmp_path / "shard.tar", ["1.jpg", "2.psd"])) == {".json": 2, ".psd": 1}
    (tmp_path / "list.txt").write_text("/photos/1.psd\n")
    assert left_out_of(tmp_path / "list.txt") == {}, "what a list names is a row"
    assert left_out_of(folder / "1.PSD") == {}, "and so is what is named itself"


def test_pictures_and_videos_are_named_first() -> None:
    counts = {".json": 12_000, ".mov": 1, ".psd": 2, NO_SUFFIX: 1}
    assert name_left_out(counts) == f"2 .psd, 1 .mov, 12,000 .json, 1 {NO_SUFFIX}"
    assert name_left_out(counts, most=2) == "2 .psd, 1 .mov and 12,001 other files"


def test_any_names_take_little_memory() -> None:
    left_out = LeftOut()
    for number in range(3 * MOST_SUFFIXES):
        left_out.add(f"part.{number}")
        left_out.add(f"part.{number}x")
    left_out.add("odd.[b]\x1b")
    assert len(left_out.counts) == MOST_SUFFIXES
    assert left_out.counts[OTHERS] == 3 * MOST_SUFFIXES + 1 + 3 * MOST_SUFFIXES - (MOST_SUFFIXES - 1)
