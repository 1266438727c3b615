"""Lists and archives of the kinds that real corpora come in, odd and damaged ones, for the hostile corpus."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from hostile_images import encoded, photo

Expected = dict[str, str]
"""Uri, relative to the folder and without a member's place → status."""

GLOBS = (
    "*.txt",
    "*.csv",
    "*.tsv",
    "*.jsonl",
    "urls.parquet",
    "bytes.parquet",
    "images.parquet",
    "*.tar",
    "*.zip",
    "*/*/deep.jpg",
)
"""The inputs, relative to the folder."""
NO_IMAGE = "[/foo] hello"


def _tar(names: Sequence[str], data: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def _links() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, kind in (
            ("hard.jpg", tarfile.LNKTYPE),
            ("soft.jpg", tarfile.SYMTYPE),
            ("fifo.jpg", tarfile.FIFOTYPE),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
    return stream.getvalue()


def _zip(members: Sequence[tuple[str, bytes]], link: str = "") -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in members:
            archive.writestr(name, data)
        if link:
            entry = zipfile.ZipInfo(link)
            entry.create_system, entry.external_attr = 3, 0o120777 << 16
            archive.writestr(entry, "/etc/passwd")
    return stream.getvalue()


def _archives(jpeg: bytes) -> tuple[dict[str, bytes], Expected]:
    plain = _tar(["a.jpg", "[b].jpg", "c#1?.jpg"], jpeg)
    second = 512 + -(-len(jpeg) // 512) * 512
    damaged = bytearray(plain)
    damaged[second + 148 : second + 156] = b"000000\0 "
    files = {
        "cut.tar": plain[: second + 700], "damaged.tar": bytes(damaged), "links.tar": _links(), "page.tar": b"<html>404</html>",
        "twice.tar": plain + _tar(["d.jpg"], jpeg), "half.zip": _zip([("a.jpg", jpeg)])[:-30],
        "odd.zip": _zip([("a b.jpg", jpeg), ("text.jpg", NO_IMAGE.encode())], link="soft.jpg"),
        "two.zip": _zip([("a.jpg", jpeg)]) + _zip([("b.jpg", jpeg)]),
    }  # fmt: skip
    expected = {
        "cut.tar#a.jpg": "ok", "cut.tar#%5Bb%5D.jpg": "corrupt", f"cut.tar#damaged-from-{2 * second}": "corrupt",
        "damaged.tar#a.jpg": "ok", f"damaged.tar#damaged-from-{second}": "corrupt", "page.tar#damaged-from-0": "corrupt",
        "links.tar#hard.jpg": "unsupported", "links.tar#soft.jpg": "unsupported", "links.tar#fifo.jpg": "unsupported",
        "twice.tar#a.jpg": "ok", "twice.tar#%5Bb%5D.jpg": "ok", "twice.tar#c%231%3F.jpg": "ok", "twice.tar#d.jpg": "ok",
        "half.zip#damaged-from-0": "corrupt", "two.zip#damaged-from-0": "corrupt", "odd.zip#a b.jpg": "ok",
        "odd.zip#text.jpg": "not_an_image", "odd.zip#soft.jpg": "unsupported",
    }  # fmt: skip
    return files, expected


def _lists() -> tuple[dict[str, bytes], Expected]:
    files = {
        "utf16.txt": "in/utf16.jpg\nin/gone-[/x].jpg\n".encode("utf-16"),
        "latin1.txt": b"in/\xe9t\xe9.jpg\nhttp://a..b/\xe9.jpg\nin/tab\tname.jpg\n",
        "odd.csv": b'URL,what\r\nhttp://[::1,"two\r\nlines"\r\ns3://,none\r\nftp://host/a.jpg,none\r\nin,a folder\r\n',
        "cells.tsv": b"id\turl\n1\tin/a, b.jpg\n",
        "lines.jsonl": b'{"path": "in/lines.jpg"}\n{"path": null}\n{"other": 1}\n',
    }
    expected = {
        "in/utf16.jpg": "ok", "in/gone-[/x].jpg": "missing", "in/\udce9t\udce9.jpg": "ok", "http://a..b/%E9.jpg": "unsupported",
        "in/tab\tname.jpg": "ok", "http://[::1": "unsupported", "s3://": "unsupported", "ftp://host/a.jpg": "unsupported",
        "in": "unsupported", "in/a, b.jpg": "ok", "in/lines.jpg": "ok", "in/part.jpg": "ok", "in/bytes.jpg": "ok",
        "images.parquet#photo %231%3F/0": "ok", "images.parquet#photo %231%3F/1": "empty",
        "images.parquet#photo %231%3F/2": "not_an_image", "x.zip/y.tar/deep.jpg": "ok",
    }  # fmt: skip
    return files, expected


def write_inputs(folder: Path) -> Expected:
    """Write lists, archives, tables, and the images that they name, into a new folder; returns the expected status of each row."""
    folder.mkdir(exist_ok=True)
    jpeg = encoded(photo())
    files, expected = _lists()
    archives, members = _archives(jpeg)
    images = [name for name, status in expected.items() if status == "ok" and name.startswith(("in/", "x.zip/"))]
    for name, data in (*files.items(), *archives.items(), *((name, jpeg) for name in images)):
        path = os.path.join(folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as stream:
            stream.write(data)
    (folder / "urls.parquet").mkdir()
    (folder / "urls.parquet" / "_SUCCESS").touch()
    pq.write_table(pa.table({"url": ["../in/part.jpg", None]}), folder / "urls.parquet" / "part-0.parquet")
    pq.write_table(pa.table({"url": [b"in/bytes.jpg"]}), folder / "bytes.parquet")
    pq.write_table(pa.table({"photo #1?": [jpeg, None, NO_IMAGE.encode()]}), folder / "images.parquet")
    return expected | members
