"""List an S3 prefix page by page, and its sub-prefixes in parallel.

s3fs's own `find` holds every key in memory. Here a thread lists the objects of each first-level sub-prefix into a temporary
file, which is read back in the order of the prefixes: memory is one page per thread, and the order is the same each time.
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
"""Sub-prefixes that are listed at a time."""
SPOOL_BYTES = 4 << 20
"""A sub-prefix's listing of up to this size stays in memory; a larger one goes to a temporary file."""

Entry = dict[str, Any]
"""An object as fsspec's `info` describes it: name (bucket/key), type, size, LastModified, ETag."""


def s3_objects(filesystem: fsspec.AbstractFileSystem, bucket: str, prefix: str) -> Iterator[Entry]:
    """Yield all objects under a prefix ("" or ending in "/"): those directly in it first, then sub-prefix by sub-prefix."""
    sub_prefixes: list[str] = []
    for page in _pages(filesystem, Bucket=bucket, Prefix=prefix, Delimiter="/"):
        yield from _entries(bucket, page)
        sub_prefixes += [common["Prefix"] for common in page.get("CommonPrefixes", [])]
    stop = threading.Event()

    def spool(sub_prefix: str) -> IO[str]:
        lines = tempfile.SpooledTemporaryFile(SPOOL_BYTES, mode="w+", encoding="utf-8")  # noqa: SIM115 (the loop below closes it)
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
    finally:  # also when the reader stops early, because of --limit
        stop.set()
        threads.shutdown(wait=True, cancel_futures=True)


def _pages(filesystem: fsspec.AbstractFileSystem, **request: str) -> Iterator[dict[str, Any]]:
    """Yield the pages of a `list_objects_v2`, of up to 1,000 keys each."""
    token: dict[str, str] = {}
    while True:
        page: dict[str, Any] = filesystem.call_s3("list_objects_v2", **request, **token)
        yield page
        if not page.get("IsTruncated"):
            return
        token = {"ContinuationToken": page["NextContinuationToken"]}


def _entries(bucket: str, page: dict[str, Any]) -> Iterator[Entry]:
    for item in page.get("Contents", []):
        if not item["Key"].endswith("/"):  # an empty object that stands for a folder
            yield {
                "name": f"{bucket}/{item['Key']}",
                "type": "file",
                "size": item["Size"],
                "LastModified": item["LastModified"],
                "ETag": item.get("ETag"),
            }
