"""Images in the rows of Parquet files."""

from __future__ import annotations

import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlcls_ray.config import S3Options
from mlcls_ray.errors import Status, UsageError
from tests.s3_servers import BUCKET, filesystem
from tests.storage.inputs.samples import IMAGES, entries_of, fetcher, status_of, uris_of, write_parquet


@pytest.mark.parametrize("struct", [False, True])
def test_rows_are_read_in_any_order(struct: bool, tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "train.parquet", struct)
    uris = uris_of(path)
    assert [uri.partition("#")[2] for uri in uris] == [f"image/{row}" for row in range(5)]
    reader = fetcher()
    for row in (4, 0, 1, 3, 2, 0):
        assert reader.fetch_once(uris[row]).image_bytes == IMAGES[row]
    assert status_of(f"{path}#image/5") is Status.MISSING
    assert status_of(f"{path}#nothing/1") is Status.MISSING
    assert status_of(f"{path}#image/x") is Status.MISSING
    assert status_of(uris[0], fetcher(max_bytes=10)) is Status.TOO_LARGE


def test_a_column_of_any_name(tmp_path: Path) -> None:
    pq.write_table(pa.table({"photo #1?/raw": IMAGES}), tmp_path / "x.parquet")
    uris = uris_of(tmp_path / "x.parquet")
    assert uris[1] == f"{tmp_path}/x.parquet#photo %231%3F/raw/1"
    assert [fetcher().fetch_once(uri).image_bytes for uri in uris] == IMAGES


def test_globs(tmp_path: Path) -> None:
    for number in range(2):
        write_parquet(tmp_path / f"part-{number}.parquet")
    assert len(uris_of(tmp_path / "*.parquet")) == 10
    pq.write_table(pa.table({"caption": ["x"]}), tmp_path / "part-2.parquet")
    with pytest.raises(UsageError, match="part-2.parquet' has no column of image bytes"):
        uris_of(tmp_path / "*.parquet")


@pytest.mark.parametrize(
    ("text", "binary", "is_list"),
    [
        ("url", "md5", True),
        ("URL", "phash", True),
        ("uri", "bytes", True),
        ("path", "md5", True),
        ("url", "jpg", False),
        ("filename", "image", False),
        ("path", "photo", False),
    ],
)
def test_uris_beside_a_binary_column(tmp_path: Path, text: str, binary: str, is_list: bool) -> None:
    value = b"0123456789abcdef" if is_list else IMAGES[0]
    pq.write_table(pa.table({text: ["/a.jpg"], binary: [value]}), tmp_path / "x.parquet")
    assert uris_of(tmp_path / "x.parquet") == (["/a.jpg"] if is_list else [f"{tmp_path}/x.parquet#{binary}/0"])


def test_a_hugging_face_row_with_a_path_and_no_bytes(tmp_path: Path) -> None:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = [{"bytes": None, "path": "/etc/passwd"}, {"bytes": IMAGES[0], "path": None}, None]
    pq.write_table(pa.table({"image": pa.array(rows, kind)}), tmp_path / "x.parquet")
    uris = uris_of(tmp_path / "x.parquet")
    assert status_of(uris[0]) is Status.MISSING, "a path in a file of strangers is not opened"
    assert fetcher().fetch_once(uris[1]).image_bytes == IMAGES[0]
    assert status_of(uris[2]) is Status.EMPTY


def test_a_folder_of_parts_with_images(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").mkdir()
    write_parquet(tmp_path / "x.parquet" / "part-0.parquet")
    (tmp_path / "x.parquet" / "_SUCCESS").touch()
    assert len(uris_of(tmp_path / "x.parquet")) == len(IMAGES)


@pytest.mark.parametrize("damage", ["text", "footer"])
def test_one_damaged_file_of_many_is_one_row(tmp_path: Path, damage: str) -> None:
    for number in range(3):
        write_parquet(tmp_path / f"{number}.parquet")
    broken = tmp_path / "0.parquet"
    data = broken.read_bytes()
    broken.write_bytes(b"no table" if damage == "text" else data[:-200] + b"\xff" * 190 + data[-10:])
    uris = uris_of(tmp_path / "*.parquet")
    assert uris[0] == f"{broken}#damaged-from-0"
    assert len(uris) == 1 + 2 * len(IMAGES)
    assert status_of(uris[0]) is Status.CORRUPT
    assert status_of(f"{tmp_path}/1.parquet#damaged-from-0") is Status.MISSING, "it was mended"


def test_a_broken_file(tmp_path: Path) -> None:
    (tmp_path / "broken.parquet").write_text("no table")
    assert status_of(f"{tmp_path}/broken.parquet#image/1") is Status.CORRUPT


def test_in_a_bucket(s3_endpoint: str, tmp_path: Path) -> None:
    base = f"{BUCKET}/{uuid.uuid4().hex}"
    s3 = S3Options(endpoint_url=s3_endpoint)
    filesystem(s3_endpoint).put_file(str(write_parquet(tmp_path / "a.parquet")), f"{base}/a.parquet")
    reader = fetcher(s3=s3)
    entries = entries_of(f"s3://{base}/a.parquet", s3=s3)
    assert [reader.fetch_once(entry.uri).image_bytes for entry in entries] == IMAGES
