"""Listing an S3 prefix: page by page, its sub-prefixes in parallel.

s3fs's own `find` holds every key. Here the objects of each first-level sub-prefix are listed by a thread into a temporary file, and
read back in the order of the prefixes: the memory is that of a page per thread, and the order is the same each time.
"""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import IO, Any

import fsspec

from mlcls_ray.prefetch import prefetch_map

LISTING_THREADS = 16
SPOOL_BYTES = 4 << 20
"""Of a sub-prefix's listing that stay in memory; more go to a temporary file."""

Entry = dict[str, Any]
"""As fsspec's `info`: name (bucket/key), type, size, LastModified, ETag."""


def s3_objects(filesystem: fsspec.AbstractFileSystem, bucket: str, prefix: str) -> Iterator[Entry]:
    """All objects under a prefix ("" or ending in "/"): those directly in it first, then sub-prefix by sub-prefix."""
    sub_prefixes: list[str] = []
    for page in _pages(filesystem, Bucket=bucket, Prefix=prefix, Delimiter="/"):
        yield from _entries(bucket, page)
        sub_prefixes += [common["Prefix"] for common in page.get("CommonPrefixes", [])]
    stop = threading.Event()

    def spool(sub_prefix: str) -> IO[str]:
        lines = tempfile.SpooledTemporaryFile(SPOOL_BYTES, mode="w+", encoding="utf-8")  # noqa: SIM115 (its reader closes it)
        for page in _pages(filesystem, Bucket=bucket, Prefix=sub_prefix):
            if stop.is_set():
                break
            lines.writelines(json.dumps(entry, default=datetime.isoformat) + "\n" for entry in _entries(bucket, page))
        lines.seek(0)
        return lines

    threads = ThreadPoolExecutor(LISTING_THREADS, thread_name_prefix="list")
    try:
        for lines in prefetch_map(spool, sub_prefixes, threads, LISTING_THREADS):
            with lines:
                for line in lines:
                    entry = json.loads(line)
                    yield entry | {"LastModified": datetime.fromisoformat(entry["LastModified"])}
    finally:  # also where a limit ends the listing early
        stop.set()
        threads.shutdown(wait=True, cancel_futures=True)


def _pages(filesystem: fsspec.AbstractFileSystem, **request: str) -> Iterator[dict[str, Any]]:
    """The pages (up to 1,000 keys each) of a `list_objects_v2`."""
    token: dict[str, str] = {}
    while True:
        page: dict[str, Any] = filesystem.call_s3("list_objects_v2", **request, **token)
        yield page
        if not page.get("IsTruncated"):
            return
        token = {"ContinuationToken": page["NextContinuationToken"]}


def _entries(bucket: str, page: dict[str, Any]) -> Iterator[Entry]:
    for item in page.get("Contents", []):
        if not item["Key"].endswith("/"):  # a folder's marker
            yield {
                "name": f"{bucket}/{item['Key']}",
                "type": "file",
                "size": item["Size"],
                "LastModified": item["LastModified"],
                "ETag": item.get("ETag"),
            }
