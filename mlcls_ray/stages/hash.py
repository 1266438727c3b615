"""Hash: uri → content hash, without decoding. Runs before a job with `dedupe`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from mlcls_ray import schema
from mlcls_ray.config import FetchOptions
from mlcls_ray.errors import ImageError
from mlcls_ray.stages.read import hash_content
from mlcls_ray.storage.fetch import Fetcher


class Hash:
    """Manifest rows (Arrow) → `row_id` and `content_hash` of those that can be read (Arrow)."""

    def __init__(self, options: FetchOptions) -> None:
        self.fetcher = Fetcher(options)
        self.threads = ThreadPoolExecutor(options.fetch_threads, thread_name_prefix="hash")

    def __call__(self, manifest: pa.Table) -> pa.Table:
        hashes = list(self.threads.map(self._hash, manifest.column(schema.URI).to_pylist()))
        columns = {schema.ROW_ID: manifest.column(schema.ROW_ID), schema.CONTENT_HASH: pa.array(hashes, pa.string())}
        return pa.table(columns).drop_null()

    def _hash(self, uri: str) -> str | None:
        try:
            return hash_content(self.fetcher.fetch(uri).image_bytes)
        except ImageError:
            return None  # the job will say why
