"""The choice of the kind of an input, and the checks before a run."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from mlcls_ray.config import S3Options
from mlcls_ray.errors import UsageError
from mlcls_ray.registry import INPUT_KINDS
from mlcls_ray.storage.inputs.listing import check_inputs, find_container, input_kinds, list_inputs
from mlcls_ray.storage.uris import parse_member
from tests.storage.inputs.samples import entries_of, make_folder, uris_of, write_parquet, write_tar

S3 = S3Options()


def kind_of(text: object) -> str:
    kinds = zip(INPUT_KINDS, input_kinds(), strict=True)
    return next(name for name, kind in kinds if kind.takes(str(text), S3, None))


def test_each_input_has_a_kind(tmp_path: Path) -> None:
    write_parquet(tmp_path / "images.parquet")
    expected = {
        "photos": "local", "photos/*.jpg": "local", "a.jpg": "local", "/a.tar": "tar", "s3://b/x-*.TAR": "tar",
        f"{tmp_path}/images.parquet": "parquet_images", f"{tmp_path}/*.parquet": "parquet_images",
        f"{tmp_path}/none.parquet": "parquet_list", "list.txt": "text_list", "https://host/l.csv?v=1": "csv_list",
        "https://host/a.jpg": "http", "https://host/a.tar": "http", "s3://b/photos": "remote", "hf://datasets/x": "remote",
    }  # fmt: skip
    assert {text: kind_of(text) for text in expected} == expected


def test_a_folder_may_be_called_like_an_archive_or_a_list(tmp_path: Path) -> None:
    for name in ("x.tar", "x.csv", "x.parquet", "x.tar.gz"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.jpg").touch()
        assert uris_of(tmp_path / name) == [str(tmp_path / name / "a.jpg")]


def test_the_kind_that_reads_a_member() -> None:
    for uri in ("/d/x.tar#a.jpg", "s3://b/x.PARQUET#image/1"):
        member = parse_member(uri)
        assert member is not None
        assert find_container(member, input_kinds()) is not None
    other = parse_member("/d/x.jpg#a")
    assert other is not None
    assert find_container(other, input_kinds()) is None


def test_inputs_are_listed_one_after_the_other(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "folder")
    shard = write_tar(tmp_path / "x.tar", ["1.jpg"])
    names = [uri.partition("?")[0].rpartition("/")[2] for uri in uris_of(shard, folder / "b", folder / "a.webp")]
    assert names == ["x.tar#1.jpg", "1.JPG", "2.png", "a.webp"]


def test_listing_is_lazy(tmp_path: Path) -> None:
    make_folder(tmp_path)
    first = itertools.islice(list_inputs([str(tmp_path)] * 1_000_000, S3), 3)
    assert len(list(first)) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nowhere", "input 'nowhere' does not exist"),
        ("ftp://host/x.jpg", "unknown scheme 'ftp'"),
        ("gs://bucket", r"gcsfs.*mlcls-ray\[gcs\]"),
        ("http://[::1", r"input 'http://\[::1' is not a valid URL"),
        ("S3://", "names no bucket"),
        ("", "input '' is empty; the folder that you are in is '.'"),
        ("file://", "input 'file://' is empty"),
        ("s3:///key.jpg", "names no bucket"),
        ("list.csv.gz", "a compressed list cannot be read; unpack it"),
        ("https://u:pw@h/list.json?sig=1", r"input 'https://h/list.json' cannot be read; lists are .txt, .csv, .tsv"),
        ("https://h/x.tar", "not over http"),
    ],
)
def test_inputs_are_checked_before_anything_starts(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_inputs([text], S3)


@pytest.mark.parametrize("text", ["S3://b/a.jpg", "s3://b/x.parquet", "s3://b/x.tar", "s3://b/*.txt", "s3://b/prefix/"])
def test_an_object_store_that_refuses_is_named(text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    nobody = S3Options(endpoint_url="http://127.0.0.1:9", profile=None, region="nowhere-1")
    with pytest.raises(UsageError, match=r"cannot be (listed|read): .*[Cc]redentials"):
        entries_of(text, s3=nobody)


def test_no_input() -> None:
    with pytest.raises(UsageError, match="no input"):
        check_inputs([], S3)
