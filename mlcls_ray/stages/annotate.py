"""Stage (optional): draws the labels under the full-size image and writes one file per image."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mlcls_ray import schema
from mlcls_ray.images.decode import decode
from mlcls_ray.images.draw import Chip, annotate, annotated_name
from mlcls_ray.storage.store import Store


class AnnotateImages:
    """Rows of the label table with `image_bytes` → the same rows without it, and files in `folder`.

    Names come from the uri, so that a task that runs again replaces its files. Not being able to write is the job's failure,
    not the image's: it is raised.
    """

    def __init__(self, store: Store, folder: str, max_pixels: int, threads: int) -> None:
        self.store = store
        self.folder = folder
        self.max_pixels = max_pixels
        self.threads = ThreadPoolExecutor(threads, thread_name_prefix="annotate")

    def __call__(self, rows: pa.Table) -> pa.Table:
        columns = [schema.URI, schema.IMAGE_BYTES, schema.CLASS_IDS, schema.LABELS, schema.SCORES]
        has_bytes = pc.greater(pc.binary_length(rows.column(schema.IMAGE_BYTES)), 0)
        is_labeled = pc.is_valid(rows.column(schema.LABELS))  # not where the engine refused it
        list(self.threads.map(self._write, rows.filter(pc.and_(has_bytes, is_labeled)).select(columns).to_pylist()))
        return rows.drop_columns([schema.IMAGE_BYTES])

    def _write(self, row: dict[str, Any]) -> None:
        named = zip(row[schema.CLASS_IDS], row[schema.LABELS], row[schema.SCORES], strict=True)
        chips = [Chip(class_id, label, score) for class_id, label, score in named]
        image = decode(row[schema.IMAGE_BYTES], self.max_pixels).image
        self.store.write(f"{self.folder}/{annotated_name(row[schema.URI])}", annotate(image, chips))
