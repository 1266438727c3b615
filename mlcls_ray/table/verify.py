"""`mlcls verify`: check that each manifest row has exactly one label row, and that nothing else is there. Reads files only, no Ray.

`_SUCCESS` lists what a run consists of, with checksums: its fragments, its manifest and `run.json`. What it says itself is counted
again. A run that version 0.1 committed has checksums of its fragments only.
"""

from __future__ import annotations

import hashlib
from collections import Counter

import pyarrow as pa

from mlcls_ray import schema
from mlcls_ray.errors import UsageError
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout
from mlcls_ray.table.fragments import first_layout, fragment_paths, fragment_schema
from mlcls_ray.table.leases import is_being_worked_on
from mlcls_ray.table.ledger import Fragment, RowSet, count_statuses, describe_file, read_row_ids
from mlcls_ray.table.manifest import describe_manifest_part
from mlcls_ray.table.records import RunRecord, Success, no_runs, read_latest, read_record, read_success
from mlcls_ray.table.verify_content import verify_content


def verify(store: Store, run_id: str | None = None) -> list[str]:
    """List the problems of a run, or of all runs under OUT and of `latest.json`.

    Raises:
        UsageError: there is no such run.
    """
    names = store.names(layout.RUNS)
    if run_id and not (run_id in names and _has_file(store, run_id)):
        raise UsageError(f"'{store.root}' holds no run '{run_id}'")
    if not any(_has_file(store, name) for name in names):
        raise no_runs(store, "runs")
    problems = [
        f"run {name}: {problem}" for name in ([run_id] if run_id else names) for problem in _verify_run(store, name)
    ]
    return problems if run_id else problems + _verify_strangers(store) + _verify_latest(store)


def _has_file(store: Store, run_id: str) -> bool:
    return store.read(layout.run_json(run_id)) is not None or store.read(layout.success(run_id)) is not None


def _verify_run(store: Store, run_id: str) -> list[str]:
    try:
        record, success = read_record(store, run_id), read_success(store, run_id)
    except UsageError as error:
        return [str(error)]
    if success is None:
        return _verify_uncommitted(store, run_id, record)
    if record is None:
        return ["run.json is missing"]
    problems = _verify_record(store, run_id, record, success) + _verify_names(store, success)
    manifest, row_ids = _verify_manifest(store, success)
    fragments, readable = _verify_fragments(store, success.fragments, fragment_paths(store, success))
    problems += manifest + fragments + _verify_counts(store, success, row_ids, readable)
    if record.run_id == run_id:
        problems += verify_content(store, record, readable, has_manifest=not manifest)
    return problems


def _verify_uncommitted(store: Store, run_id: str, record: RunRecord | None) -> list[str]:
    if record is not None and not record.relabeled_from:
        return ["not committed (no _SUCCESS): it is running, or was interrupted; the same command resumes it"]
    if store.names(layout.labels_folder(run_id)) and not is_being_worked_on(store, run_id):
        return ["its label rows are not committed: `mlcls gc` removes it"]
    return []  # a listing or a relabeling, of which no reader sees anything yet


def _verify_record(store: Store, run_id: str, record: RunRecord, success: Success) -> list[str]:
    problems = []
    if record.run_id != run_id:
        problems.append(f"run.json is that of run '{record.run_id}'")
    if record.rows != success.rows:
        problems.append(f"run.json says {record.rows} rows, _SUCCESS says {success.rows}")
    checksum = hashlib.sha256(store.read(layout.run_json(run_id)) or b"").hexdigest()
    if success.record_sha256 not in (None, checksum):
        problems.append(
            f"run.json has changed: sha256 {checksum[:12]}, _SUCCESS says {str(success.record_sha256)[:12]}"
        )
    return problems


def _verify_names(store: Store, success: Success) -> list[str]:
    """Check that the run's folder, and its folders of rows, hold nothing but what is named."""
    run_id = success.run_id
    known = {name.rpartition("/")[2] for name in (*layout.run_folders(run_id), *layout.run_files(run_id))}
    problems = [
        f"{name} does not belong to a run" for name in store.names(layout.run_folder(run_id)) if name not in known
    ]
    for folder in (layout.attempts_folder(run_id), layout.lease_folder(run_id)):
        strangers = [name for name in store.names(folder) if not name.endswith(".json")]
        problems += [f"{folder.rpartition('/')[2]}/{name} does not belong to a run" for name in strangers]
    listed = {fragment.name for fragment in success.fragments}
    problems += [
        f"fragment {name} is listed twice" for name in _repeated([fragment.name for fragment in success.fragments])
    ]
    present = set(store.names(layout.labels_folder(run_id)))
    folders = {path.rpartition("/")[0] for path in fragment_paths(store, success)}
    if layout.compacted_folder(run_id) in folders:
        problems += _verify_replaced(store, run_id, present)
    else:
        problems += [f"fragment {name} is not in _SUCCESS" for name in sorted(present - listed)]
    if store.read(layout.compaction(run_id)) is not None:
        problems.append("a compaction was interrupted: `mlcls compact` finishes it")
    if success.manifest:
        parts = {part.name for part in success.manifest}
        extra = sorted(set(store.names(layout.manifest_folder(run_id))) - parts)
        problems += [f"manifest/{name} is not in _SUCCESS" for name in extra]
    return problems


def _verify_replaced(store: Store, run_id: str, present: set[str]) -> list[str]:
    """Check `labels` where a compaction or a relabeling died before it put the committed fragments there."""
    replaced = store.read(layout.replaced(run_id))
    if replaced is None and not present:
        return []
    try:
        fragments = Success.model_validate_json(replaced or b"").fragments
    except ValueError:
        fragments = []
    if present != {fragment.name for fragment in fragments}:
        return ["a compaction was interrupted: `mlcls compact` finishes it"]
    folder = layout.labels_folder(run_id)
    return _verify_fragments(store, fragments, [f"{folder}/{fragment.name}" for fragment in fragments])[0]


def _verify_manifest(store: Store, success: Success) -> tuple[list[str], RowSet]:
    """Check the manifest's parts; returns the problems, and the row ids that were read."""
    run_id, folder = success.run_id, layout.manifest_folder(success.run_id)
    expected = {part.name: part for part in success.manifest}
    names = list(expected) or store.names(folder)
    problems, readable = [], []
    for name in names:
        try:
            part = describe_manifest_part(store, run_id, name)
            store.read_columns(f"{folder}/{name}", schema.MANIFEST.names)
        except FileNotFoundError:
            problems.append(f"manifest/{name} is missing")
            continue
        except (pa.ArrowException, OSError, LookupError) as error:
            problems.append(f"manifest/{name} is not a manifest: {error}")
            continue
        readable.append(f"{folder}/{name}")
        if expected and part.sha256 != expected[name].sha256:
            problems.append(
                f"manifest/{name} has changed: sha256 {part.sha256[:12]}, _SUCCESS says {expected[name].sha256[:12]}"
            )
    row_ids = read_row_ids(store, readable, success.rows)
    if len(row_ids) != success.rows or row_ids.duplicates or row_ids.out_of_range:
        count = len(row_ids) + row_ids.duplicates + row_ids.out_of_range
        problems.append(
            f"_SUCCESS says {success.rows} rows, the manifest has {count}, {row_ids.duplicates} of them double"
        )
    return problems, row_ids


def _verify_fragments(store: Store, fragments: list[Fragment], paths: list[str]) -> tuple[list[str], list[str]]:
    """Check fragments by what is known of them; returns the problems, and the paths of those that are right."""
    problems, readable = [], []
    for fragment, path in zip(fragments, paths, strict=True):
        found = _verify_fragment(store, fragment, path)
        problems += found
        if not found:
            readable.append(path)
    return problems, readable


def _verify_fragment(store: Store, expected: Fragment, path: str) -> list[str]:
    name = expected.name
    try:
        fragment, actual = describe_file(store, path), fragment_schema(store, path)
    except FileNotFoundError:
        return [f"fragment {name} is missing"]
    except (pa.ArrowException, OSError, LookupError) as error:
        return [f"fragment {name} is not a Parquet file of labels: {error}"]
    if fragment.sha256 != expected.sha256:
        return [f"fragment {name} has changed: sha256 {fragment.sha256[:12]}, _SUCCESS says {expected.sha256[:12]}"]
    if not (actual.equals(schema.LABEL_TABLE) or actual.equals(first_layout(actual))):
        differing = sorted(set(map(str, actual)) ^ set(map(str, schema.LABEL_TABLE)))
        return [f"fragment {name} has another schema: {', '.join(differing)}"]
    if (fragment.rows, fragment.statuses) != (expected.rows, expected.statuses):
        return [
            f"fragment {name} has {fragment.rows} rows {fragment.statuses}, _SUCCESS says {expected.rows} {expected.statuses}"
        ]
    return []


def _verify_counts(store: Store, success: Success, manifest: RowSet, readable: list[str]) -> list[str]:
    """Check that the fragments hold each manifest row exactly once."""
    problems = []
    rows = read_row_ids(store, readable, success.rows)
    if len(rows) < len(manifest):
        problems.append(f"{len(manifest) - len(rows)} of {len(manifest)} manifest rows are in no fragment")
    if rows.duplicates:
        problems.append(f"{rows.duplicates} rows appear twice")
    if rows.out_of_range:
        problems.append(f"{rows.out_of_range} rows are not in the manifest")
    counted = sum(fragment.rows for fragment in success.fragments)
    if counted != success.rows:
        problems.append(f"_SUCCESS says {success.rows} rows, its fragments have {counted}")
    if count_statuses(success.fragments) != success.statuses:
        problems.append("the counts by status of _SUCCESS do not add up")
    return problems


def _verify_strangers(store: Store) -> list[str]:
    """List Parquet files that lie beside the runs."""
    names = [*store.names(""), *(f"{layout.RUNS}/{name}" for name in store.names(layout.RUNS))]
    return [f"{name} does not belong to an output" for name in names if name.lower().endswith(".parquet")]


def _verify_latest(store: Store) -> list[str]:
    """Check that `latest.json`, where there is one, points to a committed run."""
    try:
        latest = read_latest(store)
    except UsageError as error:
        return [str(error)]
    if latest is None:
        return []
    if store.read(layout.success(latest.run_id)) is None:
        return [f"latest.json names run '{latest.run_id}', which is not committed: `mlcls gc` corrects it"]
    if latest.labels != layout.labels_folder(latest.run_id):
        return [f"latest.json names the folder '{latest.labels}', not that of its run: `mlcls gc` corrects it"]
    return []


def _repeated(names: list[str]) -> list[str]:
    return sorted(name for name, count in Counter(names).items() if count > 1)
