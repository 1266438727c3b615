"""`mlcls search`: find images by their labels, or by their likeness to one of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import duckdb

from mlcls_ray.config import FetchOptions, S3Options
from mlcls_ray.errors import ImageError, RunError, Status, UsageError, name_failures, short_message, suggest
from mlcls_ray.storage.fetch import Fetcher
from mlcls_ray.storage.store import check_new_target
from mlcls_ray.storage.uris import is_local, path_of_uri, redact_url, without_query
from mlcls_ray.storage.whole import written_whole
from mlcls_ray.table.example import Example

NO_LIMIT = 2**62

WITH_LABELS = """
    SELECT uri, score FROM (
        SELECT image.uri, coalesce(
            list_min(list_transform($labels::VARCHAR[], lambda label: image.scores[list_position(image.labels, label)])),
            list_max(image.scores), 0
        ) AS score
        FROM labels AS image
        WHERE image.status = 'ok' AND list_has_all(image.labels, $labels::VARCHAR[])
          AND NOT list_has_any(image.labels, $without::VARCHAR[]) AND NOT ($unlabeled AND len(image.labels) > 0)
    )
    WHERE score >= $min_score ORDER BY score DESC, uri LIMIT $limit
"""
ALIKE = """
    SELECT uri, cosine FROM (
        SELECT image.uri, list_cosine_similarity(image.embedding, $embedding::FLOAT[]) AS cosine
        FROM labels AS image
        WHERE image.model_fingerprint = $model AND image.uri <> $uri AND image.embedding IS NOT NULL
          AND list_has_all(image.labels, $labels::VARCHAR[]) AND NOT list_has_any(image.labels, $without::VARCHAR[])
          AND NOT ($unlabeled AND len(image.labels) > 0)
    )
    WHERE cosine >= $min_score ORDER BY cosine DESC, uri LIMIT $limit
"""
LABELS_IN_USE = "SELECT DISTINCT unnest(image.labels) FROM labels AS image"


def find_images(
    database: duckdb.DuckDBPyConnection,
    labels: Sequence[str],
    without: Sequence[str],
    min_score: float,
    limit: int | None = None,
    unlabeled: bool = False,
) -> list[tuple[str, float]]:
    """Find the images that have all of `labels` and none of `without`; `unlabeled`: and no label at all.

    Returns:
        Uris with the lowest score of the labels, highest first, from `min_score` on. Without `labels` the score is that of the surest
        label; 0 where there is none.

    Raises:
        UsageError: no image has a label of that name.
    """
    check_labels(database, [*labels, *without])
    rows = database.execute(
        WITH_LABELS,
        {
            "labels": list(labels),
            "without": list(without),
            "min_score": min_score,
            "limit": _limit(limit),
            "unlabeled": unlabeled,
        },
    ).fetchall()
    return [(str(uri), float(score)) for uri, score in rows]


def find_alike(
    database: duckdb.DuckDBPyConnection,
    example: Example,
    labels: Sequence[str],
    without: Sequence[str],
    min_score: float,
    limit: int | None = None,
    unlabeled: bool = False,
) -> list[tuple[str, float]]:
    """Find the images of the same model that look like the example, that have all of `labels` and none of `without`.

    Returns:
        Uris (without the example's) with the cosine of their embedding and that of the example, highest first, from `min_score` on.

    Raises:
        UsageError: no image has a label of that name.
    """
    check_labels(database, [*labels, *without])
    rows = database.execute(
        ALIKE,
        {
            "embedding": example.embedding,
            "model": example.model_fingerprint,
            "uri": example.uri,
            "labels": list(labels),
            "without": list(without),
            "min_score": min_score,
            "limit": _limit(limit),
            "unlabeled": unlabeled,
        },
    ).fetchall()
    return [(str(other), float(cosine)) for other, cosine in rows]


def _limit(limit: int | None) -> int:
    return NO_LIMIT if limit is None else limit


def check_labels(database: duckdb.DuckDBPyConnection, labels: Sequence[str]) -> None:
    """Refuse a label that no image has.

    Raises:
        UsageError: no image has a label of that name.
    """
    if not labels:
        return
    in_use = [row[0] for row in database.execute(LABELS_IN_USE).fetchall()]
    for label in labels:
        if label not in in_use:
            raise UsageError(f"no image has the label '{label}'{suggest(label, in_use)}")


def gather(uris: Sequence[str], folder: Path, as_links: bool, s3: S3Options) -> None:
    """Copy or link images into a folder, each under its own name; where two have the same name, with a hash of its uri.

    Raises:
        UsageError: the folder holds something.
        RunError: some images are gone, or cannot be linked because they are remote. The others are in the folder.
    """
    check_new_target(folder, "--link" if as_links else "--copy", may_be_empty_folder=True)
    folder.mkdir(parents=True, exist_ok=True)
    fetcher = Fetcher(FetchOptions(s3=s3))
    failures: list[str] = []
    for uri in uris:
        target = folder / os.path.basename(path_of_uri(uri) if is_local(uri) else without_query(uri))
        if os.path.lexists(target):
            target = folder / f"{target.stem}-{blake2b(uri.encode(), digest_size=4).hexdigest()}{target.suffix}"
        try:
            _link(uri, target) if as_links else _copy(uri, target, fetcher)
        except (ImageError, OSError) as error:
            failures.append(f"{redact_url(uri)}: {short_message(error)}")
    if failures:
        verb = "linked" if as_links else "copied"
        raise RunError(f"{len(failures):,} of {len(uris):,} images could not be {verb}: {name_failures(failures)}")


def _copy(uri: str, target: Path, fetcher: Fetcher) -> None:
    with written_whole(target) as path:
        path.write_bytes(fetcher.fetch(uri).image_bytes)


def _link(uri: str, target: Path) -> None:
    if not is_local(uri):
        raise ImageError(Status.UNSUPPORTED, "it is not on this machine: use --copy")
    original = os.path.abspath(path_of_uri(uri))
    os.stat(original)  # a link to nothing helps nobody
    target.symlink_to(original)
