"""Annotate (on request): labels → one annotated image file for each row that asked for one."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from mlcls_ray import schema
from mlcls_ray.errors import ImageError, one_image
from mlcls_ray.images.decode import decode
from mlcls_ray.images.draw import Chip, annotate, annotated_name
from mlcls_ray.stages.spec import RunSpec, model_rows
from mlcls_ray.storage.store import Store

logger = logging.getLogger(__name__)


class Annotate:
    """Rows of the label table with `image_bytes` → the same rows without it, and files in each model's output.

    File names come from the uri, so that a task that runs again replaces its own files. A file that cannot be written is the job's
    failure, not the image's: the error is raised. An image that cannot be drawn gets no file; its row stays, and the log says why.
    """

    uses_device: ClassVar[bool] = False

    def __init__(self, spec: RunSpec) -> None:
        self.folder = spec.annotated_folder
        self.max_pixels = spec.job.max_pixels
        self.stores = {model.name: Store(model.out, spec.job.s3) for model in spec.models}
        self.threads = ThreadPoolExecutor(spec.job.fetch_threads, thread_name_prefix="annotate")
        self.seconds: dict[str, float] = {}

    def __call__(self, rows: pa.Table) -> pa.Table:
        image_bytes = rows.column(schema.IMAGE_BYTES)
        for name, store in self.stores.items():
            columns = [schema.URI, schema.CLASS_IDS, schema.LABELS, schema.SCORES]
            labeled = model_rows(rows, name).select(columns).append_column(schema.IMAGE_BYTES, image_bytes)
            is_labeled = pc.is_valid(labeled.column(schema.LABELS))  # not where the engine refused the image
            chosen = labeled.filter(pc.and_(pc.greater(pc.binary_length(image_bytes), 0), is_labeled))
            list(self.threads.map(partial(self._write, store), chosen.to_pylist()))
        return rows.drop_columns([schema.IMAGE_BYTES])

    def _write(self, store: Store, row: dict[str, Any]) -> None:
        labels = zip(row[schema.CLASS_IDS], row[schema.LABELS], row[schema.SCORES], strict=True)
        chips = [Chip(class_id, label, score) for class_id, label, score in labels]
        name = annotated_name(row[schema.URI])
        try:
            with one_image():
                drawn = annotate(decode(row[schema.IMAGE_BYTES], self.max_pixels).image, chips)
        except ImageError as error:  # a decoder on a card, or at a smaller size, may read what this one does not
            logger.warning("no annotated image '%s': %s: %s", name, error.status, error)
            return
        store.write(f"{self.folder}/{name}", drawn)
