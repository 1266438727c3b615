"""Remote filesystems: prefixes, globs and single objects on real S3 servers."""

from __future__ import annotations

import uuid
from itertools import islice

import pytest

from mlcls_ray.config import S3Options
from mlcls_ray.errors import UsageError
from mlcls_ray.storage.inputs.listing import check_inputs, list_inputs
from tests.s3_servers import BUCKET, filesystem
from tests.storage.inputs.samples import entries_of, left_out_of


@pytest.fixture
def base(s3_endpoint: str) -> str:
    """A prefix with objects in it and in two sub-prefixes."""
    base = f"{BUCKET}/{uuid.uuid4().hex}"
    names = ("z.jpg", "b/2.png", "b/deep/3.jpg", "a/1.jpg", "a/notes.md", "a/.hidden.jpg")
    filesystem(s3_endpoint).pipe({f"{base}/{name}": name.encode() for name in names})
    return base


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_prefix(s3_endpoint: str, base: str, slash: str) -> None:
    entries = entries_of(f"s3://{base}{slash}", s3=S3Options(endpoint_url=s3_endpoint))
    names = [entry.uri.removeprefix(f"s3://{base}/") for entry in entries]
    assert names == ["z.jpg", "a/1.jpg", "b/2.png", "b/deep/3.jpg"], "its own objects first, then by sub-prefix"
    assert [entry.size_bytes for entry in entries] == [len(name) for name in names]
    assert all(entry.mtime is not None and entry.mtime.microsecond == 0 for entry in entries)
    assert left_out_of(f"s3://{base}{slash}", s3=S3Options(endpoint_url=s3_endpoint)) == {".md": 1}


def test_globs_and_single_objects(s3_endpoint: str, base: str) -> None:
    s3 = S3Options(endpoint_url=s3_endpoint)
    assert [entry.uri for entry in entries_of(f"s3://{base}/*/*.png", s3=s3)] == [f"s3://{base}/b/2.png"]
    assert [entry.uri for entry in entries_of(f"s3://{base}/a/notes.md", s3=s3)] == [f"s3://{base}/a/notes.md"]


@pytest.mark.parametrize("name", ["x.tar", "x.zip", "x.txt", "x.parquet", "x.csv.gz", "x.tar.gz", "x.db"])
def test_a_prefix_may_be_called_like_an_archive_or_a_list(s3_endpoint: str, base: str, name: str) -> None:
    s3 = S3Options(endpoint_url=s3_endpoint)
    filesystem(s3_endpoint).pipe({f"{base}/{name}/a.jpg": b"x"})
    for slash in ("", "/"):
        check_inputs([f"s3://{base}/{name}{slash}"], s3)
        assert [entry.uri for entry in entries_of(f"s3://{base}/{name}{slash}", s3=s3)] == [f"s3://{base}/{name}/a.jpg"]


def test_a_prefix_of_parts(s3_endpoint: str, base: str) -> None:
    s3 = S3Options(endpoint_url=s3_endpoint)
    filesystem(s3_endpoint).pipe(
        {f"{base}/l.csv/part-{part}.csv": f"uri\ns3://b/{part}.jpg\n".encode() for part in (1, 0)}
    )
    filesystem(s3_endpoint).pipe({f"{base}/l.csv/_SUCCESS": b""})
    for slash in ("", "/"):
        assert [entry.uri for entry in entries_of(f"s3://{base}/l.csv{slash}", s3=s3)] == [
            "s3://b/0.jpg",
            "s3://b/1.jpg",
        ]


def test_a_listing_may_be_left_early(s3_endpoint: str, base: str) -> None:
    entries = list_inputs([f"s3://{base}"], S3Options(endpoint_url=s3_endpoint))
    assert [entry.uri for entry in islice(entries, 2)] == [f"s3://{base}/z.jpg", f"s3://{base}/a/1.jpg"]


def test_a_bucket_that_does_not_exist(s3_endpoint: str) -> None:
    with pytest.raises(UsageError, match="cannot be listed"):
        entries_of("s3://no-such-bucket-here/photos", s3=S3Options(endpoint_url=s3_endpoint))
