"""The SQL half of `mlcls verify`: what the label rows of a run say, compared with its manifest and its `run.json`, out of core."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb

from mlcls_ray import schema
from mlcls_ray.errors import Status
from mlcls_ray.storage.store import Store
from mlcls_ray.storage.uris import strip_credentials
from mlcls_ray.table import layout
from mlcls_ray.table.records import RunRecord
from mlcls_ray.table.views import create_view, open_database, query_rows

FETCH_ROWS = 100_000

OTHER_URIS = """
    SELECT manifest.uri AS listed, labeled.uri AS labeled
    FROM labeled JOIN manifest USING (row_id) WHERE labeled.uri <> manifest.uri
"""
BROKEN_RULES = """
    SELECT
        count(*) FILTER (NOT list_contains($statuses, status)) AS "have a status that does not exist",
        count(*) FILTER ((status = 'ok') <> (labels IS NOT NULL)) AS "are `ok` without labels, or have labels without being `ok`",
        count(*) FILTER (status <> 'ok' AND coalesce(error_message, '') = '') AS "are errors without a message",
        count(*) FILTER (len(labels) <> len(class_ids) OR len(labels) <> len(scores))
            AS "have labels, class ids and scores of different lengths",
        count(*) FILTER (attempts < 1) AS "have been attempted less than once",
        count(*) FILTER (len(list_distinct(labels)) < len(labels)) AS "have a label twice",
        count(*) FILTER (labels <> list_transform(class_ids, lambda id: vocabulary[id + 1]))
            AS "have labels that are not those of their class ids",
        count(*) FILTER (list_bool_or(
            list_transform(class_ids, lambda id, place: NOT coalesce(scores[place] > thresholds[id + 1], false))
        )) AS "have a label whose score is not above its threshold"
    FROM labeled, (SELECT $vocabulary::VARCHAR[] AS vocabulary, $thresholds::FLOAT[] AS thresholds) AS run
"""
"""Each column counts the rows that break one rule; its name says what is wrong with them."""
ORIGINS = """
    SELECT DISTINCT run_id, run_number, model, model_fingerprint, preprocess_fingerprint, engine, precision, threshold_id
    FROM labeled
"""


def verify_content(store: Store, record: RunRecord, paths: Sequence[str], has_manifest: bool) -> list[str]:
    """List what is wrong with the rows of fragments that are whole.

    Args:
        store: The output.
        record: The run's `run.json`.
        paths: The fragments.
        has_manifest: Whether the manifest is whole, so that the rows can be compared with it.
    """
    if not paths:
        return []
    with open_database() as (database, _):
        store.register_with(database)
        create_view(database, "labeled", [store.data_uri(path) for path in paths])
        problems = _other_uris(database, store, record.run_id) if has_manifest else []
        values = {
            "statuses": [status.value for status in Status],
            "vocabulary": list(record.resolved_map.names),
            "thresholds": list(record.thresholds.values()),
        }
        (counts,) = query_rows(database, BROKEN_RULES, values)
        problems += [f"{count} rows {rule}" for rule, count in counts.items() if count]
        return problems + _other_origins(database, record)


def _other_uris(database: duckdb.DuckDBPyConnection, store: Store, run_id: str) -> list[str]:
    create_view(database, "manifest", store.data_uris(layout.manifest_folder(run_id)), schema.MANIFEST)
    other_uris = 0
    for batch in database.sql(OTHER_URIS).to_arrow_reader(FETCH_ROWS):
        other_uris += sum(strip_credentials(row["listed"]) != row["labeled"] for row in batch.to_pylist())
    return [f"{other_uris} rows name another input than the manifest"] if other_uris else []


def _other_origins(database: duckdb.DuckDBPyConnection, record: RunRecord) -> list[str]:
    """Compare what the rows say of their run with `run.json`. Relabeled rows keep what they say of the engine that scored them."""
    expected: dict[str, object] = {
        schema.RUN_ID: record.run_id,
        schema.RUN_NUMBER: record.number,
        schema.MODEL_FINGERPRINT: record.model_fingerprint,
        schema.THRESHOLD_ID: record.threshold_id,
    }
    if not record.relabeled_from:
        expected |= {
            schema.MODEL: record.model,
            schema.PREPROCESS_FINGERPRINT: record.preprocess_fingerprint,
            schema.ENGINE: record.engine.engine,
            schema.PRECISION: record.engine.precision,
        }
    actual: dict[str, set[object]] = {name: set() for name in expected}
    for row in query_rows(database, ORIGINS, {}):
        for name in expected:
            actual[name].add(row[name] or 0 if name == schema.RUN_NUMBER else row[name])
    return [
        f"rows have the {name} {', '.join(sorted(map(repr, actual[name])))}, run.json says {value!r}"
        for name, value in expected.items()
        if actual[name] - {value}
    ]
