"""Lists of uris: text, CSV and Parquet."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlcls_ray.config import S3Options
from mlcls_ray.errors import Status, UsageError
from tests.conftest import Handler, reply
from tests.s3_servers import BUCKET, filesystem
from tests.storage.inputs.samples import entries_of, make_folder, status_of, uris_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.txt", "\ufeffa.webp\r\n\r\n  b/1.JPG  \nhttps://host/x.jpg?a=1\n"),
        ("list.csv", "id,url\n1,a.webp\n2,b/1.JPG\n3,\n4,https://host/x.jpg?a=1\n"),
    ],
)
def test_lists(folder: Path, name: str, content: str) -> None:
    (folder / name).write_text(content, encoding="utf-8")
    assert uris_of(folder / name) == [str(folder / "a.webp"), str(folder / "b/1.JPG"), "https://host/x.jpg?a=1"]


def test_parquet_lists_and_their_column(folder: Path) -> None:
    pq.write_table(pa.table({"where": ["a.webp", None, "s3://b/k.jpg"], "n": [1, 2, 3]}), folder / "list.parquet")
    assert uris_of(folder / "list.parquet", column="where") == [str(folder / "a.webp"), "s3://b/k.jpg"]
    with pytest.raises(UsageError, match="has no column 'uri'; known: where, n"):
        uris_of(folder / "list.parquet")


def test_a_parquet_list_with_image_bytes_beside_the_uris(tmp_path: Path) -> None:
    pq.write_table(pa.table({"uri": ["/a.jpg"], "thumbnail": [b"x"]}), tmp_path / "list.parquet")
    assert uris_of(tmp_path / "list.parquet", column="uri") == ["/a.jpg"]


def test_a_listed_file_that_is_missing_stays_a_row(folder: Path) -> None:
    (folder / "list.txt").write_text(f"gone.jpg\nfile://{folder}/gone too.jpg\n")
    assert [(entry.uri, entry.size_bytes) for entry in entries_of(folder / "list.txt")] == [
        (str(folder / "gone.jpg"), None),
        (f"file://{folder}/gone too.jpg", None),
    ]


def test_broken_lists(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"not parquet")
    with pytest.raises(UsageError, match="cannot be read"):
        uris_of(tmp_path / "x.parquet")


@pytest.mark.parametrize("name", ["long.txt", "long.csv"])
def test_lines_of_ten_megabytes_and_strange_schemes_are_rows(folder: Path, name: str) -> None:
    lines = ["data:image/png;base64," + "A" * 10_000_000, "ftp://host/x.jpg", "gone.webp", "x" * 10_000_000]
    if name.endswith("csv"):
        lines = ["uri", *(f'"{line}"' for line in lines)]
    (folder / name).write_text("\n".join(lines))
    uris = uris_of(folder / name)
    assert [uri.rpartition("/")[2][:6] for uri in uris] == ["png;ba", "x.jpg", "gone.w", "xxxxxx"]
    assert max(len(uri) for uri in uris) < 400
    assert [status_of(uri) for uri in uris] == [Status.MISSING, Status.UNSUPPORTED, Status.MISSING, Status.MISSING]


def test_uris_are_valid_text(folder: Path) -> None:
    (folder / "latin.txt").write_bytes(b"s3://b/\xe9.jpg\nftp://h/\xe9.jpg\n\xe9.jpg\nhttp://h/\xe9.jpg\n")
    uris = uris_of(folder / "latin.txt")
    assert uris == ["s3://b/\ufffd.jpg", "ftp://h/\ufffd.jpg", f"file://{folder}/%E9.jpg", "http://h/%E9.jpg"]
    pq.write_table(pa.table({"uri": uris}), folder / "manifest.parquet")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_encodings_that_say_their_name(folder: Path, encoding: str) -> None:
    (folder / "list.txt").write_text("a.webp\nb/猫.jpg\n", encoding=encoding)
    assert uris_of(folder / "list.txt") == [str(folder / "a.webp"), str(folder / "b/猫.jpg")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("utf16.txt", "a.jpg\n".encode("utf-16-le"), "'.*utf16.txt' is not UTF-8 text: it has NUL bytes"),
        ("packed.csv", b"\x1f\x8b\x08", "'.*packed.csv' is a gzip file; unpack it"),
        ("open.csv", b'uri,c\na.jpg,x\n"b.jpg,y\nc.jpg,z\n', "open.csv', line 3: .*is a quote not closed"),
        ("odd.csv", b'uri,c\na.jpg,x\n"b.jpg,y\n"c.jpg",z\n', "odd.csv', line 3: .*is a quote not closed"),
        ("open.tsv", b'uri\tc\n"b.jpg\ty\nc.jpg\tz\n', "open.tsv', line 2: .*is a quote not closed"),
        ("comma.csv", b"id,uri\n1,https://h/w_1,h_2/a.jpg\n", "comma.csv', line 2: more cells than the header has"),
        ("cut.txt", "a.jpg\n".encode("utf-16")[:-1], "cut.txt' cannot be read: .*truncated data"),
        ("cells.txt", b"a.webp\nb/1.JPG\t0,1\n", "cells.txt', line 2: a tab follows 'b/1.JPG'; .* is a .tsv file"),
        ("cells.txt", b"https://h/a.jpg?sig=s\ta cat\n", "cells.txt', line 1: a tab follows 'https://h/a.jpg';"),
        ("page.txt", b"\n<!DOCTYPE html><html>\n", "page.txt' is an HTML page"),
        ("lfs.csv", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "lfs.csv' is a pointer of Git LFS"),
        ("denied.jsonl", b"<?xml version='1.0'?><Error/>", "denied.jsonl' is XML"),
        ("none.csv", b"", "none.csv' is empty: it has no header"),
        ("gs.csv", b"uri\na.jpg\ngs://b/a.jpg\n", r"gs.csv': 'gs://b/a.jpg': .*gcsfs.* 'mlcls-ray\[gcs\]'"),
    ],
)
def test_lists_that_would_lose_lines_are_refused(folder: Path, name: str, content: bytes, message: str) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(UsageError, match=message):
        uris_of(folder / name)


def test_tsv_and_upper_case_headers(folder: Path) -> None:
    (folder / "list.tsv").write_text("ID\tURL\n1\ta.webp\n2\tb, c.jpg\n3\n")
    assert uris_of(folder / "list.tsv") == [str(folder / "a.webp"), str(folder / "b, c.jpg")]


@pytest.mark.parametrize(
    ("column", "values", "kind"),
    [
        ("url", pa.array([1, 2]), "int64"),
        ("url", pa.array([["a.jpg"]]), "list<"),
        ("image", pa.array([{"url": "a.jpg"}]), "struct<"),
        ("image", pa.array([b"x"]).dictionary_encode(), "dictionary<"),
        ("image", pa.array([b"x" * 16], pa.binary(16)), "fixed_size_binary"),
    ],
)
def test_a_parquet_column_of_another_type_is_named(tmp_path: Path, column: str, values: pa.Array, kind: str) -> None:
    pq.write_table(pa.table({column: values}), tmp_path / "list.parquet")
    with pytest.raises(UsageError, match=f"list.parquet': the column '{column}' is {kind}"):
        uris_of(tmp_path / "list.parquet")


def test_uris_that_are_stored_as_bytes_are_text(tmp_path: Path) -> None:
    """As Impala writes strings. A column of hashes is none."""
    for column in ("url", "image", "page"):
        pq.write_table(pa.table({column: [b"/a.jpg", None, "/ü.jpg".encode()]}), tmp_path / "list.parquet")
        uris = [
            entry.uri for entry in entries_of(tmp_path / "list.parquet", column=column if column == "page" else None)
        ]
        assert uris == ["/a.jpg", "/ü.jpg"]
    pq.write_table(pa.table({"url": [bytes(range(16))]}), tmp_path / "list.parquet")
    assert uris_of(tmp_path / "list.parquet") == [f"{tmp_path}/list.parquet#url/0"], "bytes that are no text are images"


@pytest.mark.parametrize("name", ["none.csv", "none.txt", "none.parquet"])
def test_a_list_that_the_server_refuses_keeps_its_secrets(http_server: Callable[[Handler], str], name: str) -> None:
    base = http_server(lambda request: reply(request, b"", 404)).replace("http://", "http://user:SECRET@")
    with pytest.raises(UsageError, match=f"{name}' cannot be read") as caught:
        uris_of(f"{base}/{name}?sig=SECRET")
    assert "SECRET" not in str(caught.value)


def test_a_tab_may_be_part_of_a_name(folder: Path) -> None:
    (folder / "a.webp\tb.jpg").touch()
    (folder / "list.txt").write_text("a.webp\tb.jpg\ns3://b/a\tb.jpg\n")
    assert uris_of(folder / "list.txt") == [str(folder / "a.webp\tb.jpg"), "s3://b/a\tb.jpg"]


def test_folders_of_parts_and_globs_of_lists(tmp_path: Path) -> None:
    folder = tmp_path / "urls.parquet"
    (folder / "day=1").mkdir(parents=True)
    for name, uri in (("part-1", "/b.jpg"), ("part-0", "/a.jpg"), ("day=1/part-0", "/c.jpg"), ("_part", "/x.jpg")):
        pq.write_table(pa.table({"url": [uri]}), folder / f"{name}.parquet")
    for name in ("_SUCCESS", ".part-0.parquet.crc", ".hidden.parquet"):
        (folder / name).write_bytes(b"no table")
    assert uris_of(folder) == uris_of(f"{folder}/") == ["/c.jpg", "/a.jpg", "/b.jpg"]
    assert uris_of(folder / "*.parquet") == ["/a.jpg", "/b.jpg"]
    (tmp_path / "l.csv").mkdir()
    (tmp_path / "l.csv" / "part-00000.csv").write_text("uri\n/a.jpg\n")
    assert uris_of(tmp_path / "l.csv") == ["/a.jpg"]


def test_local_uris_in_other_spellings(folder: Path) -> None:
    path = folder / "a.webp"
    (folder / "list.txt").write_text(f"file://localhost{path}\nFILE://{path}\n")
    assert [entry.size_bytes for entry in entries_of(folder / "list.txt")] == [7, 7]


def test_a_remote_list_names_no_local_file(s3_endpoint: str) -> None:
    client = filesystem(s3_endpoint)
    base = f"{BUCKET}/{uuid.uuid4().hex}"
    s3 = S3Options(endpoint_url=s3_endpoint)
    client.pipe_file(f"{base}/good.txt", b"a/1.jpg\nhttps://host/2.jpg\n")
    entries = entries_of(f"s3://{base}/good.txt", s3=s3)
    assert [entry.uri for entry in entries] == [f"s3://{base}/a/1.jpg", "https://host/2.jpg"]
    for line in (b"/etc/passwd", b"file:///etc/passwd", b"FILE://localhost/etc/passwd"):
        client.pipe_file(f"{base}/bad.txt", line)
        with pytest.raises(UsageError, match="names the local file '.*/etc/passwd': only a local list may"):
            entries_of(f"s3://{base}/bad.txt", s3=s3)
