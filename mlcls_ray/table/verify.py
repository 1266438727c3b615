"""`mlcls verify`: is the promise kept? Reads files only, no Ray."""

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
from mlcls_ray.table.views import create_view, open_database, quoted


def verify(store: Store, run_id: str | None = None) -> list[str]:
    """What is wrong with a run, or with all runs under OUT; empty where nothing is.

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
            wrong = _verify_fragment(store, run_id, fragment.name, fragment.sha256)
            problems += wrong
            if not wrong:
                readable.append(fragment.name)
    if store.read(layout.compaction(run_id)) is not None:
        problems.append("a compaction did not end: `mlcls compact` finishes it")
    return problems + _verify_rows(store, run_id, success, readable) + _verify_content(store, run_id, readable)


def _verify_fragment(store: Store, run_id: str, name: str, sha256: str) -> list[str]:
    try:
        found = describe_fragment(store, run_id, name)
    except pa.ArrowInvalid as error:
        return [f"fragment {name} is not a Parquet file: {error}"]
    if found.sha256 != sha256:
        return [f"fragment {name} has changed: sha256 {found.sha256[:12]}, _SUCCESS says {sha256[:12]}"]
    with store.open(f"{layout.labels_folder(run_id)}/{name}") as stream:
        table_schema = pq.read_schema(stream)
    expected = schema.label_table(*(_list_size(table_schema, name) for name in (schema.ALL_SCORES, schema.EMBEDDING)))
    if not table_schema.remove_metadata().equals(expected):
        differing = sorted(set(map(str, table_schema)) ^ set(map(str, expected)))
        return [f"fragment {name} has another schema: {', '.join(differing)}"]
    return []


def _verify_content(store: Store, run_id: str, readable: list[str]) -> list[str]:
    """Each label row names its manifest row's input, and holds what its status promises. DuckDB joins them out of core."""
    if not readable:
        return []
    problems = []
    with open_database() as (database, _):
        store.register_with(database)
        create_view(database, "manifest", store.data_uris(layout.manifest_folder(run_id)), schema.MANIFEST)
        create_view(database, "labeled", store.data_uris(layout.labels_folder(run_id), readable), CHECKED)
        out_of_range = 0
        for batch in database.sql(OTHER_NAMES).to_arrow_reader(100_000):
            out_of_range += sum(strip_credentials(one["told"]) != one["found"] for one in batch.to_pylist())
        if out_of_range:
            problems.append(f"{out_of_range} rows name another input than the manifest")
        for text, condition in RULES.items():
            ((count,),) = database.sql(f"SELECT count(*) FROM labeled WHERE {condition}").fetchall()
            if count:
                problems.append(f"{count} rows {text}")
    return problems


CHECKED = pa.schema(
    [
        schema.label_table(1).field(name)
        for name in (
            schema.ROW_ID, schema.URI, schema.STATUS, schema.ERROR_MESSAGE, schema.ATTEMPTS, schema.LABELS, schema.CLASS_IDS, schema.SCORES,
        )
    ]
)  # fmt: skip
OTHER_NAMES = f"""
    SELECT manifest.{schema.URI} AS told, labeled.{schema.URI} AS found
    FROM labeled JOIN manifest USING ({schema.ROW_ID}) WHERE told <> found
"""
RULES = {
    "have a status that does not exist": f"{schema.STATUS} NOT IN ({', '.join(quoted(status.value) for status in Status)})",
    "are `ok` without labels, or have labels without being `ok`": f"({schema.STATUS} = 'ok') <> ({schema.LABELS} IS NOT NULL)",
    "are errors without a message": f"{schema.STATUS} <> 'ok' AND coalesce({schema.ERROR_MESSAGE}, '') = ''",
    "have labels, class ids and scores of different lengths": (
        f"len({schema.LABELS}) <> len({schema.CLASS_IDS}) OR len({schema.LABELS}) <> len({schema.SCORES})"
    ),
    "have been attempted less than once": f"{schema.ATTEMPTS} < 1",
}


def _list_size(table_schema: pa.Schema, column: str) -> int:
    position = table_schema.get_field_index(column)
    kind = table_schema.field(position).type if position >= 0 else None
    return kind.list_size if isinstance(kind, pa.FixedSizeListType) else 0


def _verify_rows(store: Store, run_id: str, success: Success, readable: list[str]) -> list[str]:
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
