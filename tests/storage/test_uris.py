"""Uris: every local name survives, schemes are checked, secrets are removed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mlcls_ray.errors import UsageError
from mlcls_ray.storage.uris import (
    MemberUri,
    Place,
    open_filesystem,
    parse_member,
    path_of_uri,
    redact_url,
    redact_urls,
    scheme_of,
    strip_credentials,
    uri_of_path,
)

NAMES = [
    b"plain.jpg",
    "写真 📷.jpg".encode(),
    b"100%.jpg",
    b"a#b?c.jpg",
    b"line\nbreak.jpg",
    b"quo'te\".jpg",
    b"\xff\xfe.jpg",
    b"%41.jpg",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_local_name_survives(tmp_path: Path, name: bytes) -> None:
    path = os.path.join(os.fsencode(tmp_path), name)
    uri = uri_of_path(os.fsdecode(path))
    uri.encode("utf-8")  # fits into a Parquet string
    assert os.fsencode(path_of_uri(uri)) == path


def test_plain_paths_stay_plain(tmp_path: Path) -> None:
    assert uri_of_path(tmp_path / "a b.jpg") == str(tmp_path / "a b.jpg")
    assert path_of_uri("file:///a/b%20c.jpg") == "/a/b c.jpg"
    assert path_of_uri("file:///a/b c.jpg") == "/a/b c.jpg"


def test_schemes() -> None:
    assert [scheme_of(uri) for uri in ("/a", "a", "S3://b/k", "https://h/x")] == ["file", "file", "s3", "https"]
    with pytest.raises(UsageError, match="unknown scheme 's4'"):
        scheme_of("s4://bucket/key")


@pytest.mark.parametrize(
    ("uri", "public"),
    [
        ("https://user:pw@host:8/a.jpg?X-Amz-Signature=secret#x", "https://host:8/a.jpg"),
        ("http://user:secret@[bad/a.jpg?token=secret", "[bad/a.jpg"),
        ("s3://bucket/what?.jpg", "s3://bucket/what?.jpg"),
        ("/a?b.jpg", "/a?b.jpg"),
    ],
)
def test_redact_url_removes_secrets(uri: str, public: str) -> None:
    assert redact_url(uri) == public


def test_a_missing_package_is_named() -> None:
    with pytest.raises(UsageError, match="gcsfs"):
        open_filesystem("gs://bucket/key")


@pytest.mark.parametrize(
    ("uri", "public"),
    [
        ("https://u:pw@h/a.jpg", "https://h/a.jpg"),
        ("https://h/a.jpg?X-Amz-Algorithm=A&X-Amz-Signature=s3cret&id=5", "https://h/a.jpg?id=5"),
        ("https://h/a.jpg?AWSAccessKeyId=k&Signature=s&Expires=1", "https://h/a.jpg"),
        ("https://h/a.jpg?sv=2020&se=x&sr=b&sp=r&sig=s3cret", "https://h/a.jpg"),
        ("https://h/a.jpg?token=t&size=large", "https://h/a.jpg?size=large"),
        ("https://h/a.jpg?size=large&b=%20&c", "https://h/a.jpg?size=large&b=%20&c"),
        ("https://[broken/a.jpg?token=t", "https://[broken/a.jpg"),
        ("s3://b/k?Signature=x", "s3://b/k?Signature=x"),
        ("/a?token=x", "/a?token=x"),
        ("/d/x.tar#1.jpg?at=512&size=7", "/d/x.tar#1.jpg"),
        ("/d/x.jpg?at=512&size=7", "/d/x.jpg?at=512&size=7"),
    ],
)
def test_the_uri_in_the_table_opens_nothing(uri: str, public: str) -> None:
    assert strip_credentials(uri) == public


@pytest.mark.parametrize(
    ("uri", "member"),
    [
        (
            "s3://b/shard-0.TAR#a b/1%23.jpg?at=512&size=7",
            MemberUri("s3://b/shard-0.TAR", "a b/1%23.jpg", Place(512, 7)),
        ),
        ("/data/x.parquet#image/17", MemberUri("/data/x.parquet", "image/17")),
        ("/a/b.jpg", None),
        ("/a/x.tar", None),
        ("x.tar#", None),
        ("/a#b", None),
    ],
)
def test_members(uri: str, member: MemberUri | None) -> None:
    assert parse_member(uri) == member
    assert member is None or str(member) == uri


def test_urls_in_the_messages_of_libraries() -> None:
    message = "404: 'https://u:pw@h/a.csv?sig=S', see http://u:pw@[bad/x?token=S\nand s3://b/k (https://h/b)"
    redacted = redact_urls(message)
    assert redacted.startswith("404: 'https://h/a.csv', see ")
    assert redacted.endswith("\nand s3://b/k (https://h/b)")
    assert "pw" not in redacted
    assert "=S" not in redacted
