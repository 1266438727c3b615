"""`mlcls verify`: check that each manifest row has exactly one label row. Reads files only, no Ray."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from mlcls_ray import schema
from mlcls_ray.errors import Status, UsageError
from mlcls_ray.storage.store import Store
from mlcls_ray.storage.uris import strip_credentials
from mlcls_ray.table import layout
from mlcls_ray.table.ledger import count_statuses, describe_fragment, fragment_names, read_rows
from mlcls_ray.table.manifest import manifest_rows
from mlcls_ray.table.records import Success, no_runs, read_success, run_ids
from mlcls_ray.table.views import create_view, open_database

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
        count(*) FILTER (attempts < 1) AS "have been attempted less than once"
    FROM labeled
"""
"""Each column counts the rows that break one rule; its name says what is wrong with them."""


def verify(store: Store, run_id: str | None = None) -> list[str]:
    """List the problems of a run, or of all runs under OUT.

    Raises:
        UsageError: there is no such run.
    """
    runs = [run_id] if run_id else run_ids(store)
    if not runs:
        raise no_runs(store, "runs")
    return [f"run {name}: {problem}" for name in runs for problem in _verify_run(store, name)]


def _verify_run(store: Store, run_id: str) -> list[str]:
    if store.read(layout.run_json(run_id)) is None:
        raise UsageError(f"'{store.root}' holds no run '{run_id}'")
    success = read_success(store, run_id)
    if success is None:
        return ["not committed (no _SUCCESS): it is running, or was interrupted; the same command resumes it"]
    listed = {fragment.name for fragment in success.fragments}
    present = set(fragment_names(store, run_id))
    problems = [f"fragment {name} is missing" for name in sorted(listed - present)]
    problems += [f"fragment {name} is not in _SUCCESS" for name in sorted(present - listed)]
    readable = []
    for fragment in success.fragments:
        if fragment.name in present:
            problems_of_fragment = _verify_fragment(store, run_id, fragment.name, fragment.sha256)
            problems += problems_of_fragment
            if not problems_of_fragment:
                readable.append(fragment.name)
    if store.read(layout.compaction(run_id)) is not None:
        problems.append("a compaction was interrupted: `mlcls compact` finishes it")
    return problems + _verify_rows(store, run_id, success, readable) + _verify_content(store, run_id, readable)


def _verify_fragment(store: Store, run_id: str, name: str, sha256: str) -> list[str]:
    try:
        fragment = describe_fragment(store, run_id, name)
    except pa.ArrowInvalid as error:
        return [f"fragment {name} is not a Parquet file: {error}"]
    if fragment.sha256 != sha256:
        return [f"fragment {name} has changed: sha256 {fragment.sha256[:12]}, _SUCCESS says {sha256[:12]}"]
    with store.open(f"{layout.labels_folder(run_id)}/{name}") as stream:
        actual = pq.read_schema(stream)
    expected = schema.label_table(*(_list_size(actual, column) for column in (schema.ALL_SCORES, schema.EMBEDDING)))
    if not actual.remove_metadata().equals(expected):
        differing = sorted(set(map(str, actual)) ^ set(map(str, expected)))
        return [f"fragment {name} has another schema: {', '.join(differing)}"]
    return []


def _list_size(table_schema: pa.Schema, column: str) -> int:
    position = table_schema.get_field_index(column)
    kind = table_schema.field(position).type if position >= 0 else None
    return kind.list_size if isinstance(kind, pa.FixedSizeListType) else 0


def _verify_rows(store: Store, run_id: str, success: Success, readable: list[str]) -> list[str]:
    """Check that the fragments hold each manifest row exactly once."""
    expected = manifest_rows(store, run_id)
    problems = []
    if success.rows != expected:
        problems.append(f"_SUCCESS says {success.rows} rows, the manifest has {expected}")
    rows = read_rows(store, run_id, readable, expected)
    if len(rows) != expected:
        problems.append(f"{expected - len(rows)} of {expected} manifest rows are in no fragment")
    if rows.duplicates:
        problems.append(f"{rows.duplicates} rows appear twice")
    if rows.out_of_range:
        problems.append(f"{rows.out_of_range} rows are not in the manifest")
    if count_statuses(success.fragments) != success.statuses:
        problems.append("the counts by status of _SUCCESS do not add up")
    return problems


def _verify_content(store: Store, run_id: str, readable: list[str]) -> list[str]:
    """Check that each label row has its manifest row's uri, and what its status promises. DuckDB joins them out of core."""
    if not readable:
        return []
    problems = []
    with open_database() as (database, _):
        store.register_with(database)
        create_view(database, "manifest", store.data_uris(layout.manifest_folder(run_id)), schema.MANIFEST)
        create_view(database, "labeled", store.data_uris(layout.labels_folder(run_id), readable))
        other_uris = 0
        for batch in database.sql(OTHER_URIS).to_arrow_reader(FETCH_ROWS):
            other_uris += sum(strip_credentials(row["listed"]) != row["labeled"] for row in batch.to_pylist())
        if other_uris:
            problems.append(f"{other_uris} rows name another input than the manifest")
        statuses = [status.value for status in Status]
        (counts,) = database.sql(BROKEN_RULES, params={"statuses": statuses}).to_arrow_table().to_pylist()
        problems += [f"{count} rows {rule}" for rule, count in counts.items() if count]
    return problems
