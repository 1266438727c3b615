"""Images in tar shards: listed without unpacking, read by their bytes. Hostile archives do no harm."""

from __future__ import annotations

import tarfile
import uuid
from io import BytesIO
from pathlib import Path

import pytest

from mlcls_ray.config import S3Options
from mlcls_ray.errors import ImageError, Status, UsageError
from mlcls_ray.storage.inputs.listing import list_inputs
from mlcls_ray.storage.uris import strip_credentials
from tests.s3_servers import BUCKET, filesystem
from tests.storage.inputs.samples import IMAGES, entries_of, fetcher, status_of, uris_of, write_tar


def test_members_are_read_by_place_and_by_name(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a b.tar", ["1.jpg", "deep/2.JPG", ".hidden.jpg", "x#y?.png", "猫.jpg"])
    entries = entries_of(path)
    names = [strip_credentials(entry.uri).partition("#")[2] for entry in entries]
    assert names == ["1.jpg", "deep/2.JPG", "x%23y%3F.png", "%E7%8C%AB.jpg"]
    assert {entry.etag for entry in entries} == {entries[0].etag} != {None}
    reader = fetcher()
    for entry, number in zip(entries, (0, 1, 3, 4), strict=True):
        assert entry.size_bytes == len(IMAGES[number])
        assert reader.fetch_once(entry.uri).image_bytes == IMAGES[number]
        in_table = strip_credentials(entry.uri)
        assert reader.fetch_once(in_table).image_bytes == IMAGES[number]
    assert status_of(f"{path}#nothing.jpg", reader) is Status.MISSING


def test_globs(tmp_path: Path) -> None:
    for number in range(2):
        write_tar(tmp_path / f"shard-{number}.tar", ["1.jpg", "2.jpg"])
    assert len(entries_of(tmp_path / "shard-*.tar")) == 4
    with pytest.raises(UsageError, match="matches no file"):
        entries_of(tmp_path / "nothing-*.tar")


def test_links_devices_and_names_lead_nowhere(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "links.tar", "w") as archive:
        for name, kind, target in (
            ("a.jpg", tarfile.SYMTYPE, "/etc/passwd"),
            ("b.jpg", tarfile.LNKTYPE, "a.jpg"),
            ("c.jpg", tarfile.CHRTYPE, ""),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            archive.addfile(member)
        outside = tarfile.TarInfo("../../outside.jpg")
        outside.size = 3
        archive.addfile(outside, BytesIO(b"abc"))
    *others, entry = entries_of(tmp_path / "links.tar")
    assert fetcher().fetch_once(entry.uri).image_bytes == b"abc"
    assert [strip_credentials(other.uri).rpartition("#")[2] for other in others] == ["a.jpg", "b.jpg", "c.jpg"]
    for other in others:
        assert status_of(other.uri) is status_of(strip_credentials(other.uri)) is Status.UNSUPPORTED


def test_concatenated_archives_are_read_to_the_end(tmp_path: Path) -> None:
    first, second = (write_tar(tmp_path / f"{name}.tar", [f"{name}.jpg"]).read_bytes() for name in "ab")
    (tmp_path / "both.tar").write_bytes(first + second + b"what is no header" * 100)
    entries = entries_of(tmp_path / "both.tar")
    assert [strip_credentials(entry.uri).rpartition("#")[2] for entry in entries] == ["a.jpg", "b.jpg"]
    assert [fetcher().fetch_once(entry.uri).image_bytes for entry in entries] == [IMAGES[0], IMAGES[0]]


@pytest.mark.parametrize("cut", [None, 100, 600])
def test_damage_inside_is_a_row_that_says_so(tmp_path: Path, cut: int | None) -> None:
    path = write_tar(tmp_path / "x.tar", ["1.jpg", "2.jpg", "3.jpg"])
    with tarfile.open(path) as archive:
        header = archive.getmember("2.jpg").offset
    data = bytearray(path.read_bytes())
    data[header + 10] ^= 0x55 if cut is None else 0
    path.write_bytes(data[: header + cut] if cut else data)
    names = [strip_credentials(uri).rpartition("#")[2] for uri in uris_of(path)]
    damage = uris_of(path)[-1]
    assert names[0] == "1.jpg"
    assert names[-1].startswith("damaged-from-")
    with pytest.raises(ImageError, match="damaged from byte") as caught:
        fetcher().fetch_once(damage)
    assert caught.value.status is Status.CORRUPT


def test_one_damaged_shard_of_many_is_one_row(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", ["1.jpg"])
    (tmp_path / "1.tar").write_text("no archive" * 100)
    write_tar(tmp_path / "2.tar", ["1.jpg"])
    uris = uris_of(tmp_path / "*.tar")
    assert [uri.partition("?")[0].rpartition("/")[2] for uri in uris] == [
        "0.tar#1.jpg",
        "1.tar#damaged-from-0",
        "2.tar#1.jpg",
    ]
    with pytest.raises(ImageError, match="archive '.*1.tar' cannot be read") as caught:
        fetcher().fetch_once(uris[1])
    assert caught.value.status is Status.CORRUPT


def test_an_archive_that_is_large_cut_or_gone(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "whole.tar", ["1.jpg"])
    (entry,) = entries_of(path)
    assert status_of(entry.uri, fetcher(max_bytes=10)) is Status.TOO_LARGE
    path.write_bytes(path.read_bytes()[:600])
    assert status_of(entry.uri) is Status.CORRUPT
    path.unlink()
    assert status_of(entry.uri) is Status.MISSING


def test_a_header_that_claims_more_than_there_is(tmp_path: Path) -> None:
    member = tarfile.TarInfo("1.jpg")
    member.size = 2**70
    (tmp_path / "liar.tar").write_bytes(member.tobuf(tarfile.GNU_FORMAT) + b"x" * 512)
    entry = next(list_inputs([str(tmp_path / "liar.tar")], S3Options()))
    assert entry.size_bytes is not None
    assert entry.size_bytes < 2**63, "it fits into the manifest"
    assert status_of(entry.uri) is Status.TOO_LARGE


def test_what_is_no_tar_archive(tmp_path: Path) -> None:
    (tmp_path / "text.tar").write_text("no archive" * 100)
    with pytest.raises(UsageError, match="cannot be read"):
        entries_of(tmp_path / "text.tar")
    assert status_of(f"{tmp_path}/text.tar#1.jpg") is Status.CORRUPT
    (tmp_path / "packed.tar.gz").touch()
    with pytest.raises(UsageError, match="members of a compressed archive cannot be read one by one"):
        entries_of(tmp_path / "packed.tar.gz")


def test_a_file_may_be_called_like_a_member(tmp_path: Path) -> None:
    odd = tmp_path / "x.tar#y.jpg"
    odd.write_bytes(IMAGES[0])
    assert fetcher().fetch_once(str(odd)).image_bytes == IMAGES[0]


def test_in_a_bucket(s3_endpoint: str, tmp_path: Path) -> None:
    base = f"{BUCKET}/{uuid.uuid4().hex}"
    s3 = S3Options(endpoint_url=s3_endpoint)
    filesystem(s3_endpoint).put_file(str(write_tar(tmp_path / "a.tar", ["1.jpg", "2.jpg"])), f"{base}/a.tar")
    reader = fetcher(s3=s3)
    entries = entries_of(f"s3://{base}/*.tar", s3=s3)
    assert [reader.fetch_once(entry.uri).image_bytes for entry in entries] == IMAGES[:2]
    assert reader.fetch_once(f"s3://{base}/a.tar#2.jpg").image_bytes == IMAGES[1]
