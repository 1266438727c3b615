"""`mlcls verify`: is the promise kept? Reads files only, no Ray."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from mlcls_ray import schema
from mlcls_ray.errors import UsageError
from mlcls_ray.runs.records import Success, read_success, run_ids
from mlcls_ray.storage import layout
from mlcls_ray.storage.ledger import count_statuses, describe_fragment, fragment_names, read_rows
from mlcls_ray.storage.manifest import manifest_rows
from mlcls_ray.storage.store import Store


def verify(store: Store, run_id: str | None = None) -> list[str]:
    """What is wrong with a run, or with all runs under OUT; empty where nothing is.

    Raises:
        UsageError: there is no such run.
    """
    runs = [run_id] if run_id else run_ids(store)
    if not runs:
        raise UsageError(f"'{store.root}' holds no runs")
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
    return problems + _verify_rows(store, run_id, success, readable)


def _verify_fragment(store: Store, run_id: str, name: str, sha256: str) -> list[str]:
    try:
        found = describe_fragment(store, run_id, name)
    except pa.ArrowInvalid as error:
        return [f"fragment {name} is not a Parquet file: {error}"]
    if found.sha256 != sha256:
        return [f"fragment {name} has changed: sha256 {found.sha256[:12]}, _SUCCESS says {sha256[:12]}"]
    with store.open(f"{layout.labels_folder(run_id)}/{name}") as stream:
        table_schema = pq.read_schema(stream)
    expected = schema.label_table(_class_num(table_schema))
    if not table_schema.remove_metadata().equals(expected):
        differing = sorted(set(map(str, table_schema)) ^ set(map(str, expected)))
        return [f"fragment {name} has another schema: {', '.join(differing)}"]
    return []


def _class_num(table_schema: pa.Schema) -> int:
    position = table_schema.get_field_index(schema.ALL_SCORES)
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
    if rows.strangers:
        problems.append(f"{rows.strangers} rows are not in the manifest")
    if count_statuses(success.fragments) != success.statuses:
        problems.append("the counts by status of _SUCCESS do not add up")
    return problems
