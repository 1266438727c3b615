"""The image that `mlcls search --like` is given: its embedding is in the table, or is computed now, with the model of the run."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from mlcls_ray.config import FetchOptions
from mlcls_ray.devices import Device
from mlcls_ray.engines.load import embedding_engine, load_embedder
from mlcls_ray.errors import ImageError, UsageError
from mlcls_ray.images.decode import decode
from mlcls_ray.models.cache import open_model
from mlcls_ray.storage.fetch import Fetcher
from mlcls_ray.storage.uris import is_local, path_of_uri, redact_url, uri_of_path
from mlcls_ray.table.label_table import LabelTable
from mlcls_ray.table.records import read_record
from mlcls_ray.terminal import SILENT, Steps

if TYPE_CHECKING:
    import duckdb

EMBEDDING = "SELECT image.embedding, image.model_fingerprint FROM newest('all_rows') AS image WHERE image.uri = $uri"
NEWEST_EMBEDDING = """
    SELECT image.run_id, image.model_fingerprint FROM labels AS image
    WHERE image.embedding IS NOT NULL ORDER BY image.run_number DESC, image.labeled_at DESC LIMIT 1
"""
CPU = Device("cpu")


class Example(NamedTuple):
    """An image to find others by: its embedding, float [D] of length 1, and the model that it comes from."""

    uri: str
    embedding: list[float]
    model_fingerprint: str


def labeled_example(database: duckdb.DuckDBPyConnection, uri: str) -> Example | None:
    """Read the embedding of an image in the table; None if it has none."""
    row = database.execute(EMBEDDING, {"uri": uri}).fetchone()
    return None if row is None or row[0] is None else Example(uri, row[0], row[1])


def find_example(table: LabelTable, text: str, steps: Steps = SILENT) -> Example:
    """Find the embedding of an image by its uri or path; of an image that the table does not have, compute it.

    Raises:
        UsageError: the table has no embeddings; the image has none, or cannot be read; the model is not on this machine any more.
    """
    newest = table.database.execute(NEWEST_EMBEDDING).fetchone()
    if newest is None:
        raise UsageError("the table has no embeddings: label with --embeddings")
    for uri in dict.fromkeys((text, uri_of_path(path_of_uri(text)) if is_local(text) else text)):
        if (example := labeled_example(table.database, uri)) is not None:
            return example
    run_id, fingerprint = newest
    steps.say("computing the image's embedding")
    return Example(text, _embed(table, text, run_id, fingerprint), fingerprint)


def _embed(table: LabelTable, text: str, run_id: str, fingerprint: str) -> list[float]:
    """Compute the embedding of an image with the model of a run."""
    record = read_record(table.store, run_id)
    source = str(record.config.get("model") or record.model) if record else ""
    name = redact_url(text)
    try:
        model = open_model(source, table.store.s3)
    except UsageError as error:
        raise UsageError(f"'{name}' has no embedding in the table, and cannot be compared with it: {error}") from None
    if model.fingerprint != fingerprint:
        raise UsageError(
            f"'{name}' has no embedding in the table, and cannot be compared with it: '{source}' is another model now"
        )
    try:
        path = uri_of_path(path_of_uri(text)) if is_local(text) else text
        image = decode(Fetcher(FetchOptions(s3=table.store.s3)).fetch(path).image_bytes).image
    except ImageError as error:
        raise UsageError(
            f"'{name}' has no embedding in the table, and cannot be read: {error.status.value}: {error}"
        ) from None
    engine = load_embedder(embedding_engine(CPU), model, CPU, os.cpu_count() or 1, is_brief=True)
    pixels = model.preprocess.to_pixels(image)
    engine.warm_up(1)
    return [float(value) for value in engine.embed(pixels[None])[1][0]]
