"""Images in tar shards and Parquet files: named, listed without unpacking, read by their bytes; hostile archives end nothing."""

from __future__ import annotations

import io
import tarfile
import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlcls_ray.config import LabelJob, S3Options
from mlcls_ray.errors import ImageError, Status, UsageError
from mlcls_ray.job.label import label
from mlcls_ray.storage.fetch import Fetcher
from mlcls_ray.storage.inputs.listing import list_inputs
from mlcls_ray.storage.inputs.members import parse_member
from mlcls_ray.storage.store import Store
from mlcls_ray.storage.uris import strip_credentials
from mlcls_ray.table.verify import verify
from tests.conftest import encode, picture, run_cli
from tests.s3_servers import BUCKET, filesystem

S3 = S3Options()
IMAGES = [encode(picture(seed=number)) for number in range(5)]


def write_tar(path: Path, names: list[str]) -> Path:
    with tarfile.open(path, "w") as archive:
        for number, name in enumerate(names):
            member = tarfile.TarInfo(name)
            member.size = len(IMAGES[number])
            archive.addfile(member, io.BytesIO(IMAGES[number]))
            text = tarfile.TarInfo(name.rpartition(".")[0] + ".json")
            text.size = 2
            archive.addfile(text, io.BytesIO(b"{}"))
    return path


def write_parquet(path: Path, struct: bool = False) -> Path:
    values = [{"bytes": one, "path": f"{number}.jpg"} for number, one in enumerate(IMAGES)] if struct else IMAGES
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())]) if struct else pa.binary()
    table = pa.table({"image": pa.array(values, kind), "caption": ["x"] * len(IMAGES)})
    pq.write_table(table, path, row_group_size=2)
    return path


def fetcher(max_bytes: int = 10**6) -> Fetcher:
    return Fetcher(S3, max_bytes, 10.0)


def refused(uri: str, reader: Fetcher | None = None) -> Status:
    with pytest.raises(ImageError) as caught:
        (reader or fetcher()).fetch_once(uri)
    return caught.value.status


def test_names() -> None:
    told = parse_member("s3://b/shard-0.TAR#a b/1%23.jpg?at=512&size=7")
    assert told is not None
    assert tuple(told) == ("s3://b/shard-0.TAR", "tar", "a b/1%23.jpg", 512, 7)
    assert parse_member("/data/x.parquet#image/17") == ("/data/x.parquet", "parquet", "image/17", -1, -1)
    for other in ("/a/b.jpg", "/a/x.tar", "x.tar#", "https://h/i.jpg#frag"):
        assert parse_member(other) is None
    assert strip_credentials("/d/x.tar#1.jpg?at=512&size=7") == "/d/x.tar#1.jpg"


def test_a_tar_is_listed_and_read_by_place_and_by_name(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a b.tar", ["1.jpg", "deep/2.JPG", ".hidden.jpg", "x#y?.png", "猫.jpg"])
    found = list(list_inputs((str(path),), S3))
    assert [strip_credentials(one.uri).partition("#")[2] for one in found] == [
        "1.jpg",
        "deep/2.JPG",
        "x%23y%3F.png",
        "%E7%8C%AB.jpg",
    ]
    assert {one.etag for one in found} == {found[0].etag} != {None}
    reader = fetcher()
    for one, number in zip(found, (0, 1, 3, 4), strict=True):
        assert one.size_bytes == len(IMAGES[number])
        assert reader.fetch_once(one.uri).image_bytes == IMAGES[number]
        assert reader.fetch_once(strip_credentials(one.uri)).image_bytes == IMAGES[number], (
            "as the label table names it"
        )


@pytest.mark.parametrize("struct", [False, True])
def test_parquet_rows(struct: bool, tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "train.parquet", struct)
    found = list(list_inputs((str(path),), S3))
    assert [one.uri.partition("#")[2] for one in found] == [f"image/{row}" for row in range(5)]
    reader = fetcher()
    for row in (4, 0, 1, 3, 2, 0):
        assert reader.fetch_once(found[row].uri).image_bytes == IMAGES[row]
    assert refused(f"{path}#image/5") is Status.MISSING
    assert refused(f"{path}#nothing/1") is Status.MISSING
    assert refused(f"{path}#image/x") is Status.MISSING


def test_a_list_of_uris_is_still_a_list(tmp_path: Path) -> None:
    pq.write_table(pa.table({"uri": ["/a.jpg"], "thumbnail": [b"x"]}), tmp_path / "list.parquet")
    assert [one.uri for one in list_inputs((str(tmp_path / "list.parquet"),), S3, "uri")] == ["/a.jpg"]


def test_globs(tmp_path: Path) -> None:
    for number in range(2):
        write_tar(tmp_path / f"shard-{number}.tar", ["1.jpg", "2.jpg"])
        write_parquet(tmp_path / f"part-{number}.parquet")
    assert len(list(list_inputs((str(tmp_path / "shard-*.tar"),), S3))) == 4
    assert len(list(list_inputs((str(tmp_path / "*.parquet"),), S3))) == 10
    with pytest.raises(UsageError, match="matches no file"):
        list(list_inputs((str(tmp_path / "nothing-*.tar"),), S3))


def test_hostile_archives(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "links.tar", "w") as archive:
        for name, kind, target in (
            ("a.jpg", tarfile.SYMTYPE, "/etc/passwd"),
            ("b.jpg", tarfile.LNKTYPE, "a.jpg"),
            ("c.jpg", tarfile.CHRTYPE, ""),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            archive.addfile(member)
        out = tarfile.TarInfo("../../outside.jpg")
        out.size = 3
        archive.addfile(out, io.BytesIO(b"abc"))
    (only,) = list_inputs((str(tmp_path / "links.tar"),), S3)
    assert fetcher().fetch_once(only.uri).image_bytes == b"abc", "its name leads nowhere"
    whole = write_tar(tmp_path / "whole.tar", ["1.jpg"]).read_bytes()
    found = next(iter(list_inputs((str(tmp_path / "whole.tar"),), S3)))
    assert refused(found.uri, fetcher(max_bytes=10)) is Status.TOO_LARGE
    (tmp_path / "whole.tar").write_bytes(whole[:600])
    assert refused(found.uri) is Status.CORRUPT
    (tmp_path / "whole.tar").unlink()
    assert refused(found.uri) is Status.MISSING
    (tmp_path / "text.tar").write_text("no archive" * 100)
    with pytest.raises(UsageError, match="cannot be read"):
        list(list_inputs((str(tmp_path / "text.tar"),), S3))
    assert refused(f"{tmp_path}/text.tar#1.jpg") is Status.CORRUPT
    (tmp_path / "broken.parquet").write_text("no table")
    assert refused(f"{tmp_path}/broken.parquet#image/1") is Status.CORRUPT
    (tmp_path / "packed.tar.gz").touch()
    with pytest.raises(UsageError, match="members of a compressed archive cannot be read one by one"):
        list(list_inputs((str(tmp_path / "packed.tar.gz"),), S3))
    odd = tmp_path / "x.tar#y.jpg"
    odd.write_bytes(IMAGES[0])
    assert fetcher().fetch_once(str(odd)).image_bytes == IMAGES[0], "a file may be called so"


@pytest.mark.usefixtures("loopback_ray")
def test_a_job_over_shards_resumes_and_is_incremental(tiny_folder: Path, tmp_path: Path) -> None:
    write_tar(tmp_path / "shard-0.tar", ["1.jpg", "2.jpg", "3.jpg"])
    write_parquet(tmp_path / "part-0.parquet", struct=True)
    inputs = (str(tmp_path / "shard-*.tar"), str(tmp_path / "*.parquet"))
    job = LabelJob(inputs=inputs, out=str(tmp_path / "out"), model=str(tiny_folder), incremental=True, batch_size=2)
    first = label(job.model_copy(update={"run_id": "first"}))
    assert first is not None
    assert first.statuses == {"ok": 8}
    assert verify(Store(str(tmp_path / "out"))) == []
    assert label(job.model_copy(update={"run_id": "again"})) is None
    write_tar(tmp_path / "shard-1.tar", ["1.jpg", "2.jpg"])
    second = label(job.model_copy(update={"run_id": "second"}))
    assert second is not None
    assert second.rows == 2
    write_tar(tmp_path / "shard-0.tar", ["1.jpg", "2.jpg", "3.jpg", "4.jpg"])
    third = label(job.model_copy(update={"run_id": "third"}))
    assert third is not None
    assert third.rows == 4, "the members change with their archive"
    run_cli("search", tmp_path / "out", "--label", "cat", "--copy", tmp_path / "found")
    assert len(list((tmp_path / "found").iterdir())) >= 1


def test_in_a_bucket(s3_endpoint: str, tmp_path: Path) -> None:
    client, base = filesystem(s3_endpoint), f"{BUCKET}/{uuid.uuid4().hex}"
    client.put_file(str(write_tar(tmp_path / "a.tar", ["1.jpg", "2.jpg"])), f"{base}/a.tar")
    client.put_file(str(write_parquet(tmp_path / "a.parquet")), f"{base}/a.parquet")
    s3 = S3Options(endpoint_url=s3_endpoint)
    found = list(list_inputs((f"s3://{base}/*.tar", f"s3://{base}/a.parquet"), s3))
    assert len(found) == 7
    reader = Fetcher(s3, 10**6, 10.0)
    assert [reader.fetch_once(one.uri).image_bytes for one in found] == [*IMAGES[:2], *IMAGES]
