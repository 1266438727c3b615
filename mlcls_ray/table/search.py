"""`mlcls search`: images by their labels."""

from __future__ import annotations

import os
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import duckdb

from mlcls_ray import schema
from mlcls_ray.config import FetchOptions
from mlcls_ray.errors import UsageError, suggest
from mlcls_ray.storage.fetch import Fetcher
from mlcls_ray.storage.uris import is_local, path_of_uri
from mlcls_ray.table.views import LABELS


def find_images(
    database: duckdb.DuckDBPyConnection,
    wanted: Sequence[str],
    unwanted: Sequence[str],
    min_score: float,
    limit: int | None = None,
) -> list[tuple[str, float]]:
    """Uris with the lowest score of the wanted labels, highest first: of images that have all of them and none of the unwanted.

    Raises:
        UsageError: no image has ever been given a label of that name.
    """
    _check_known(database, [*wanted, *unwanted])
    scores = [f"list_extract({schema.SCORES}, list_position({schema.LABELS}, ?))" for _ in wanted]
    least = f"least({', '.join(scores)})" if len(scores) > 1 else scores[0]
    rows = database.execute(
        f"SELECT * FROM (SELECT {schema.URI}, {least} AS score FROM {LABELS} "
        f"WHERE list_has_all({schema.LABELS}, ?) AND NOT list_has_any({schema.LABELS}, ?)) "
        f"WHERE score >= ? ORDER BY score DESC, {schema.URI} LIMIT ?",
        [*wanted, list(wanted), list(unwanted), min_score, limit if limit is not None else 2**62],
    ).fetchall()
    return [(str(uri), float(score)) for uri, score in rows]


def find_alike(
    database: duckdb.DuckDBPyConnection,
    uri: str,
    wanted: Sequence[str],
    unwanted: Sequence[str],
    min_score: float,
    limit: int | None = None,
) -> list[tuple[str, float]]:
    """Uris with the cosine of their embedding and that of `uri`, highest first, `uri` itself left out; of the same model's images that
    have all of the wanted labels and none of the unwanted, and a cosine of at least `min_score`.

    Raises:
        UsageError: the table has no such uri, or no embedding of it; or no image has a label of that name.
    """
    _check_known(database, [*wanted, *unwanted])
    columns = [row[0] for row in database.execute(f"DESCRIBE {LABELS}").fetchall()]
    if schema.EMBEDDING not in columns:
        raise UsageError("the table has no embeddings: label with --embeddings")
    row = database.execute(
        f"SELECT {schema.EMBEDDING}, {schema.MODEL_FINGERPRINT} FROM {LABELS} WHERE {schema.URI} = ?", [uri]
    ).fetchone()
    if row is None or row[0] is None:
        told = "is not in the table" if row is None else "has no embedding: it was labeled without, or is not ok"
        raise UsageError(f"'{uri}' {told}")
    rows = database.execute(
        f"SELECT * FROM (SELECT {schema.URI}, list_cosine_similarity({schema.EMBEDDING}, ?::FLOAT[]) AS cosine FROM {LABELS} "
        f"WHERE {schema.MODEL_FINGERPRINT} = ? AND {schema.URI} <> ? AND {schema.EMBEDDING} IS NOT NULL "
        f"AND list_has_all({schema.LABELS}, ?) AND NOT list_has_any({schema.LABELS}, ?)) "
        f"WHERE cosine >= ? ORDER BY cosine DESC, {schema.URI} LIMIT ?",
        [row[0], row[1], uri, list(wanted), list(unwanted), min_score, limit if limit is not None else 2**62],
    ).fetchall()
    return [(str(found), float(cosine)) for found, cosine in rows]


def _check_known(database: duckdb.DuckDBPyConnection, names: Sequence[str]) -> None:
    known = [row[0] for row in database.execute(f"SELECT DISTINCT unnest({schema.LABELS}) FROM {LABELS}").fetchall()]
    for name in names:
        if name not in known:
            raise UsageError(f"no image has the label '{name}'{suggest(name, known)}")


def gather(uris: Sequence[str], folder: Path, as_links: bool) -> None:
    """Put the images into a folder: each under its own name, and a hash of its uri where two names are the same.

    Raises:
        UsageError: a remote image cannot be linked to; or the folder holds files.
        ImageError: an image is not there any more.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"'{folder}' exists already: give a new or an empty folder")
    folder.mkdir(parents=True, exist_ok=True)
    fetcher = Fetcher(FetchOptions())
    for uri in uris:
        target = folder / os.path.basename(uri.partition("?")[0])
        if os.path.lexists(target):
            target = folder / f"{target.stem}-{blake2b(uri.encode(), digest_size=4).hexdigest()}{target.suffix}"
        if as_links:
            if not is_local(uri):
                raise UsageError(f"'{uri}' is not on this machine: use --copy")
            target.symlink_to(os.path.abspath(path_of_uri(uri)))
        else:
            target.write_bytes(fetcher.fetch(uri).image_bytes)
