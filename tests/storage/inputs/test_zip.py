"""Images in zip archives: listed from the directory, read by their bytes. Hostile archives do no harm."""

from __future__ import annotations

import io
import stat
import struct
import uuid
import zipfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mlcls_ray.config import S3Options
from mlcls_ray.errors import Status, UsageError
from mlcls_ray.job.label import label
from mlcls_ray.storage.uris import strip_credentials
from tests.conftest import quick_job
from tests.s3_servers import BUCKET, filesystem
from tests.storage.inputs.samples import IMAGES, entries_of, fetcher, status_of

LOCAL, CENTRAL = b"PK\3\4", b"PK\1\2"

QUICK = ("--workers", 1, "--engine", "openvino", "--precision", "fp32")


def write_zip(path: Path, names: list[str], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for number, name in enumerate(names):
            archive.writestr(name, IMAGES[number])
            archive.writestr(name.rpartition(".")[0] + ".json", "{}")
    return path


def patch(path: Path, signature: bytes, offset: int, form: str, value: int) -> None:
    """Change a number in the first record with this signature."""
    data = bytearray(path.read_bytes())
    struct.pack_into(form, data, data.index(signature) + offset, value)
    path.write_bytes(data)


class Unseekable(io.RawIOBase):
    """A pipe: zipfile then writes sizes behind the data."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("wb")

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:
        return self.file.write(data)

    def close(self) -> None:
        self.file.close()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_members_are_read_by_place_and_by_name(tmp_path: Path, method: int) -> None:
    path = write_zip(tmp_path / "a b.ZIP", ["1.jpg", "deep/2.JPG", "__MACOSX/._1.jpg", "x#y?.png", "猫.jpg"], method)
    entries = entries_of(path)
    names = [strip_credentials(entry.uri).partition("#")[2] for entry in entries]
    assert names == ["1.jpg", "deep/2.JPG", "x%23y%3F.png", "%E7%8C%AB.jpg"]
    assert {entry.etag for entry in entries} == {entries[0].etag} != {None}
    reader = fetcher()
    for entry, number in zip(entries, (0, 1, 3, 4), strict=True):
        assert entry.size_bytes == len(IMAGES[number])
        assert reader.fetch_once(entry.uri).image_bytes == IMAGES[number]
        assert reader.fetch_once(strip_credentials(entry.uri)).image_bytes == IMAGES[number]
    assert status_of(f"{path}#nothing.jpg", reader) is Status.MISSING


def test_zip64_descriptors_long_headers_and_comments(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        with archive.open("64.jpg", "w", force_zip64=True) as member:
            member.write(IMAGES[0])
        name = zipfile.ZipInfo("n" * 300 + ".jpg")
        name.extra = struct.pack("<HH", 0x7777, 400) + b"x" * 400
        archive.writestr(name, IMAGES[1])
        archive.comment = b"PK" * 30_000
    piped = tmp_path / "piped.zip"
    with Unseekable(piped) as pipe, zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("1.jpg", IMAGES[2])
    entries = entries_of(path, piped)
    assert [fetcher().fetch_once(entry.uri).image_bytes for entry in entries] == IMAGES[:3]
    assert [entry.size_bytes for entry in entries] == [len(data) for data in IMAGES[:3]]


def test_more_files_than_16_bits_count(tmp_path: Path) -> None:
    path = tmp_path / "many.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(66_000):
            archive.writestr(f"{number}.jpg", b"%d" % number)
    entries = entries_of(path)
    assert len(entries) == 66_000
    assert fetcher().fetch_once(entries[-1].uri).image_bytes == b"65999"


def test_an_archive_behind_a_program(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", ["1.jpg"])
    path.write_bytes(b"#!/bin/sh\n" * 1000 + path.read_bytes())
    (entry,) = entries_of(path)
    assert fetcher().fetch_once(entry.uri).image_bytes == IMAGES[0]


def test_two_archives_in_one_file(tmp_path: Path) -> None:
    """Only the last one's directory is found: the files of the first would be missing in silence."""
    first, second = (write_zip(tmp_path / f"{name}.zip", [f"{name}.jpg"]) for name in "ab")
    second.write_bytes(first.read_bytes() + second.read_bytes())
    with pytest.raises(UsageError, match="b.zip' cannot be read: another zip file is in front of it"):
        entries_of(second)
    names = [entry.uri.partition("?")[0].rpartition("/")[2] for entry in entries_of(tmp_path / "*.zip")]
    assert names == ["a.zip#a.jpg", "b.zip#damaged-from-0"]


def test_links_lead_nowhere(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("1.jpg")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    (entry,) = entries_of(tmp_path / "a.zip")
    assert status_of(entry.uri) is status_of(strip_credentials(entry.uri)) is Status.UNSUPPORTED


def test_names_in_cp437_and_names_that_lead_elsewhere(tmp_path: Path) -> None:
    class OldInfo(zipfile.ZipInfo):
        def _encodeFilenameFlags(self) -> tuple[bytes, int]:
            return self.filename.encode("cp437"), self.flag_bits & ~0x800

    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(OldInfo("grün.jpg"), b"1")
        archive.writestr("../../outside.jpg", b"2")
        archive.writestr("/etc/absolute.jpg", b"3")
        archive.writestr("folder.jpg/", b"")
    entries = entries_of(tmp_path / "a.zip")
    names = [strip_credentials(entry.uri).partition("#")[2] for entry in entries]
    assert names == ["gr%C3%BCn.jpg", "../../outside.jpg", "/etc/absolute.jpg"]
    assert [fetcher().fetch_once(entry.uri).image_bytes for entry in entries] == [b"1", b"2", b"3"]
    assert [file.name for file in tmp_path.iterdir()] == ["a.zip"]


def test_encrypted_members_and_other_compressions_are_unsupported(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", ["1.jpg"])
    patch(path, LOCAL, 6, "<H", 1)
    patch(path, CENTRAL, 8, "<H", 1)
    packed = write_zip(tmp_path / "b.zip", ["1.jpg"], zipfile.ZIP_BZIP2)
    assert [status_of(entry.uri) for entry in entries_of(path, packed)] == [Status.UNSUPPORTED] * 2


def test_bombs_are_too_large(tmp_path: Path) -> None:
    """100 MB of zeros: declared, declared as 10 bytes, and with the size behind the data."""
    zeros = b"\0" * 100_000_000
    for name in ("honest", "liar"):
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("1.jpg", zeros)
    patch(tmp_path / "liar.zip", LOCAL, 22, "<L", 10)
    patch(tmp_path / "liar.zip", CENTRAL, 24, "<L", 10)
    with Unseekable(tmp_path / "piped.zip") as pipe, zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("1.jpg", zeros)
    entries = entries_of(tmp_path / "*.zip")
    assert [entry.size_bytes for entry in entries] == [len(zeros), 10, len(zeros)]
    assert [status_of(entry.uri) for entry in entries] == [Status.TOO_LARGE] * 3
    stored = write_zip(tmp_path / "stored.zip", ["1.jpg"], zipfile.ZIP_STORED)
    assert status_of(f"{stored}#1.jpg", fetcher(max_bytes=10)) is Status.TOO_LARGE


def test_damaged_members_are_corrupt(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", ["1.jpg"])
    (entry,) = entries_of(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:600])
    assert status_of(entry.uri) is Status.CORRUPT
    path.write_bytes(b"x" * len(whole))
    assert status_of(entry.uri) is Status.CORRUPT
    for position in (40, 300):
        damaged = bytearray(whole)
        damaged[position] ^= 0xFF
        path.write_bytes(damaged)
        assert status_of(entry.uri) is Status.CORRUPT
    path.unlink()
    assert status_of(entry.uri) is Status.MISSING


def test_directories_that_lie(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", ["1.jpg"])
    whole = path.read_bytes()
    huge = struct.pack("<HHQQ", 1, 16, 2**64 - 1, 2**64 - 1)
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo("1.jpg")
        info.extra = huge
        archive.writestr(info, b"x")
    patch(path, CENTRAL, 20, "<L", 0xFFFF_FFFF)
    patch(path, CENTRAL, 24, "<L", 0xFFFF_FFFF)
    (entry,) = entries_of(path)
    assert entry.size_bytes is not None
    assert entry.size_bytes < 2**63, "it fits into the manifest"
    assert status_of(entry.uri) is Status.TOO_LARGE
    for bad in (
        b"",
        b"no archive" * 100,
        whole[:600],
        whole.replace(CENTRAL, b"PK\1\3"),
        whole.replace(b"PK\5\6", b"PK\5\7"),
    ):
        path.write_bytes(bad)
        with pytest.raises(UsageError, match="cannot be read"):
            entries_of(path)
        assert status_of(f"{path}#1.jpg") is Status.CORRUPT


def test_in_a_bucket(s3_endpoint: str, tmp_path: Path) -> None:
    base = f"{BUCKET}/{uuid.uuid4().hex}"
    s3 = S3Options(endpoint_url=s3_endpoint)
    for name in ("a", "b"):
        path = write_zip(tmp_path / f"{name}.zip", ["1.jpg", "2.jpg"])
        filesystem(s3_endpoint).put_file(str(path), f"{base}/{name}.zip")
    reader = fetcher(s3=s3)
    entries = entries_of(f"s3://{base}/*.zip", s3=s3)
    assert [reader.fetch_once(entry.uri).image_bytes for entry in entries] == IMAGES[:2] * 2
    assert reader.fetch_once(f"s3://{base}/a.zip#2.jpg").image_bytes == IMAGES[1]


def test_a_job_labels_an_archive(loopback_ray: None, tiny_folder: Path, tmp_path: Path) -> None:
    path = write_zip(tmp_path / "photos.zip", ["1.jpg", "2.jpg", "cut.jpg"])
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("text.jpg", "not an image")
    label(quick_job(inputs=(str(path),), out=str(tmp_path / "out"), model=str(tiny_folder), run_id="r"))
    rows = pq.read_table(tmp_path / "out" / "runs" / "r" / "labels", columns=["uri", "status"]).to_pylist()
    assert {row["uri"]: row["status"] for row in rows} == {
        f"{path}#1.jpg": "ok",
        f"{path}#2.jpg": "ok",
        f"{path}#cut.jpg": "ok",
        f"{path}#text.jpg": "not_an_image",
    }
