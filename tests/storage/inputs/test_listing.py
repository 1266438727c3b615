"""Listing: folders, globs, files, lists; sorted, streamed, and nothing that could hang."""

from __future__ import annotations

import itertools
import os
import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlcls_ray.config import S3Options
from mlcls_ray.errors import ImageError, UsageError
from mlcls_ray.storage.fetch import Fetcher
from mlcls_ray.storage.inputs import listing
from mlcls_ray.storage.inputs.listing import check_inputs, list_inputs
from tests.s3_servers import BUCKET, filesystem

S3 = S3Options()


def listed(*inputs: object, column: str | None = None) -> list[str]:
    return [found.uri for found in list_inputs([str(text) for text in inputs], S3, column)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b/2.png", "b/1.JPG", "a.webp", "b/notes.txt", ".hidden.jpg", "c/deep/er/x.tiff"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 7)
    return tmp_path


def test_a_folder_is_searched_for_image_suffixes(folder: Path) -> None:
    assert [os.path.relpath(uri, folder) for uri in listed(folder)] == [
        "a.webp",
        "b/1.JPG",
        "b/2.png",
        "c/deep/er/x.tiff",
    ]


def test_size_and_time_are_told(folder: Path) -> None:
    found = next(list_inputs([str(folder)], S3))
    assert found.size_bytes == 7
    assert found.mtime is not None
    assert abs(found.mtime.timestamp() - (folder / "a.webp").stat().st_mtime) < 1e-3


def test_globs_files_and_overlaps(folder: Path) -> None:
    assert len(listed(folder / "b" / "*")) == 2
    assert len(listed(folder / "**" / "*.tiff")) == 1
    assert len(listed(folder / "a.webp", folder / "a.webp")) == 2


def test_a_file_with_a_wildcard_in_its_name_is_itself(folder: Path) -> None:
    (folder / "a[1].jpg").write_bytes(b"x")
    assert listed(folder / "a[1].jpg") == [str(folder / "a[1].jpg")]


def test_what_could_hang_or_loop_is_left_out(folder: Path) -> None:
    os.mkfifo(folder / "fifo.jpg")
    (folder / "dir.jpg").mkdir()
    (folder / "loop").symlink_to(folder)
    (folder / "self.jpg").symlink_to(folder / "self.jpg")
    (folder / "link.jpg").symlink_to(folder / "a.webp")
    names = {os.path.relpath(uri, folder) for uri in listed(folder)}
    assert names == {"a.webp", "b/1.JPG", "b/2.png", "c/deep/er/x.tiff", "self.jpg", "link.jpg"}


def test_listing_is_lazy(folder: Path) -> None:
    endless = itertools.islice(list_inputs([str(folder)] * 1_000_000, S3), 3)
    assert len(list(endless)) == 3


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.txt", "\ufeffa.webp\r\n\r\n  b/1.JPG  \nhttps://host/x.jpg?a=1\n"),
        ("list.csv", "id,url\n1,a.webp\n2,b/1.JPG\n3,\n4,https://host/x.jpg?a=1\n"),
    ],
)
def test_lists(folder: Path, name: str, content: str) -> None:
    (folder / name).write_text(content, encoding="utf-8")
    assert listed(folder / name) == [str(folder / "a.webp"), str(folder / "b/1.JPG"), "https://host/x.jpg?a=1"]


def test_parquet_lists_and_their_column(folder: Path) -> None:
    pq.write_table(pa.table({"where": ["a.webp", None, "s3://b/k.jpg"], "n": [1, 2, 3]}), folder / "list.parquet")
    assert listed(folder / "list.parquet", column="where") == [str(folder / "a.webp"), "s3://b/k.jpg"]
    with pytest.raises(UsageError, match="has no column 'uri'; known: where, n"):
        listed(folder / "list.parquet")


def test_a_listed_file_that_is_missing_stays_a_row(folder: Path) -> None:
    (folder / "list.txt").write_text("gone.jpg\n")
    (found,) = list_inputs([str(folder / "list.txt")], S3)
    assert (found.uri, found.size_bytes) == (str(folder / "gone.jpg"), None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nowhere", "input 'nowhere' does not exist"),
        ("ftp://host/x.jpg", "unknown scheme 'ftp'"),
        ("gs://bucket", "gcsfs"),
    ],
)
def test_checks_before_anything_starts(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_inputs([text], S3)


def test_no_input_and_no_match(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no input"):
        check_inputs([], S3)
    with pytest.raises(UsageError, match="matches no file"):
        listed(tmp_path / "*.jpg")


def test_broken_lists(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"not parquet")
    with pytest.raises(UsageError, match="cannot be read"):
        listed(tmp_path / "x.parquet")


@pytest.mark.parametrize("name", ["long.txt", "long.csv"])
def test_lines_of_ten_megabytes_and_strange_schemes_are_rows(folder: Path, name: str) -> None:
    lines = ["data:image/png;base64," + "A" * 10_000_000, "ftp://host/x.jpg", "a.webp", "x" * 10_000_000]
    if name.endswith("csv"):
        lines = ["uri", *(f'"{line}"' for line in lines)]
    (folder / name).write_text("\n".join(lines))
    found = list(list_inputs([str(folder / name)], S3))
    assert [one.uri.rpartition("/")[2][:6] for one in found] == ["png;ba", "x.jpg", "a.webp", "xxxxxx"]
    assert max(len(one.uri) for one in found) < 400
    statuses = []
    for one in found:
        try:
            Fetcher(S3, 10**6, 1.0).fetch(one.uri)
        except ImageError as error:
            statuses.append(str(error.status))
    assert statuses == ["missing", "unsupported", "missing"], "the picture in the middle is there"


def test_a_list_from_elsewhere_names_no_local_file(s3_endpoint: str) -> None:
    client = filesystem(s3_endpoint)
    base = f"{BUCKET}/{uuid.uuid4().hex}"
    s3 = S3Options(endpoint_url=s3_endpoint)
    client.pipe_file(f"{base}/good.txt", b"a/1.jpg\nhttps://host/2.jpg\n")
    assert [one.uri for one in list_inputs([f"s3://{base}/good.txt"], s3)] == [
        f"s3://{base}/a/1.jpg",
        "https://host/2.jpg",
    ]
    for line in (b"/etc/passwd", b"file:///etc/passwd"):
        client.pipe_file(f"{base}/bad.txt", line)
        with pytest.raises(UsageError, match="names the local file '.*/etc/passwd': only a local list may"):
            list(list_inputs([f"s3://{base}/bad.txt"], s3))


def test_a_very_large_folder_is_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "SORTED_ENTRIES", 5)
    for number in range(12):
        (tmp_path / f"{number:02d}.jpg").touch()
    names = [os.path.basename(uri) for uri in listed(tmp_path)]
    assert sorted(names) == [f"{number:02d}.jpg" for number in range(12)]
    assert names[:5] == sorted(names[:5])
