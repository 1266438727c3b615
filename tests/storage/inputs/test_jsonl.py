"""Lists of uris in JSON lines."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest

from mlcls_ray.config import S3Options
from mlcls_ray.errors import UsageError
from tests.s3_servers import BUCKET, filesystem
from tests.storage.inputs.samples import entries_of, make_folder, uris_of


@pytest.mark.parametrize("name", ["list.jsonl", "list.NDJSON"])
def test_a_list(tmp_path: Path, name: str) -> None:
    make_folder(tmp_path)
    lines = [
        '\ufeff{"id": 1, "url": "a.webp"}',
        "",
        '  {"url": "  b/1.JPG "}\r',
        '{"id": 3, "url": null}',
        '{"id": 4}',
        '{"url": "https://host/\\u732b.jpg?a=1", "labels": ["cat"]}',
    ]
    (tmp_path / name).write_text("\n".join(lines), encoding="utf-8")
    assert uris_of(tmp_path / name) == [str(tmp_path / "a.webp"), str(tmp_path / "b/1.JPG"), "https://host/猫.jpg?a=1"]


def test_the_column_that_is_named(tmp_path: Path) -> None:
    path = tmp_path / "list.jsonl"
    path.write_text('{"uri": "a.jpg", "where": "s3://b/k.jpg"}\n')
    assert uris_of(path, column="where") == ["s3://b/k.jpg"]
    with pytest.raises(UsageError, match="list '.*list.jsonl' has no column 'here': did you mean 'where'"):
        uris_of(path, column="here")
    path.write_text("\n")
    assert uris_of(path) == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.jpg", "no JSON"),
        ('{"uri": "a.jpg"', "no JSON"),
        ("[" * 100_000, "no JSON"),
        ('["a.jpg"]', "a JSON object is expected"),
        ('{"uri": 7}', "'uri' is no text"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "list.jsonl").write_text(f'{{"uri": "a.jpg"}}\n\n{line}\n')
    with pytest.raises(UsageError, match=f"list '.*list.jsonl', line 3: {message}"):
        uris_of(tmp_path / "list.jsonl")


def test_very_long_lines_are_rows(tmp_path: Path) -> None:
    (tmp_path / "list.jsonl").write_text(json.dumps({"uri": "data:image/png;base64," + "A" * 10_000_000}))
    (uri,) = uris_of(tmp_path / "list.jsonl")
    assert len(uri) < 400


def test_in_a_bucket(s3_endpoint: str) -> None:
    base = f"{BUCKET}/{uuid.uuid4().hex}"
    s3 = S3Options(endpoint_url=s3_endpoint)
    filesystem(s3_endpoint).pipe_file(f"{base}/list.jsonl", b'{"path": "a/1.jpg"}\n{"path": "https://host/2.jpg"}\n')
    entries = entries_of(f"s3://{base}/list.jsonl", s3=s3)
    assert [entry.uri for entry in entries] == [f"s3://{base}/a/1.jpg", "https://host/2.jpg"]
    filesystem(s3_endpoint).pipe_file(f"{base}/bad.jsonl", b'{"path": "/etc/passwd"}')
    with pytest.raises(UsageError, match="only a local list may"):
        entries_of(f"s3://{base}/bad.jsonl", s3=s3)
