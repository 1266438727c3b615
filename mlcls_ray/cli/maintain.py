"""The commands that look after what was labeled."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

from cyclopts import Parameter

from mlcls_ray.errors import RunError

FAILED = RunError.exit_code


def verify(out: str, *, run_id: str | None = None) -> None:
    """Check the promise: each manifest row in exactly one label row, checksums, schema. Exit code 1 if it is broken.

    Parameters
    ----------
    out
        An output folder of `mlcls label`.
    run_id
        Check this run only. Default: all of them.
    """
    from mlcls_ray.storage.store import Store
    from mlcls_ray.table.records import run_ids
    from mlcls_ray.table.verify import verify as find_problems

    store = Store(out)
    problems = find_problems(store, run_id)
    for problem in problems:
        print(problem)
    if problems:
        sys.exit(FAILED)
    runs = 1 if run_id else len(run_ids(store))
    print(f"ok: {runs} run(s), each manifest row in exactly one label row, all checksums match")


def status(out: str, *, last: int = 10, json: Annotated[bool, Parameter(negative=())] = False) -> None:
    """Show how the newest runs of an output stand, also one that is going on: rows done, rate, errors by kind, time left.

    Parameters
    ----------
    out
        An output folder of `mlcls label`.
    last
        How many runs to show.
    json
        Print one JSON object a run instead of a table.
    """
    from mlcls_ray.cli.summary import print_status
    from mlcls_ray.storage.store import Store
    from mlcls_ray.table.records import no_runs, run_ids
    from mlcls_ray.table.status import run_status

    store = Store(out)
    found = [run_status(store, run_id) for run_id in run_ids(store)[-last:]]
    known = sorted((one for one in found if one is not None), key=lambda one: one.created_at)
    if not known:
        raise no_runs(store, "runs")
    if json:
        for one in known:
            print(one.model_dump_json())
        return
    print_status(known)


def gc(out: str, *, dry_run: Annotated[bool, Parameter(negative=())] = False) -> None:
    """Remove what died left behind: half-written files, listings that never ended, fragments that no run has committed.

    What can be resumed, or is going on, stays.

    Parameters
    ----------
    out
        An output folder of `mlcls label`.
    dry_run
        Only say what would go.
    """
    from mlcls_ray.storage.store import Store
    from mlcls_ray.table.gc import find_leftovers, remove_leftovers

    store = Store(out)
    found = find_leftovers(store)
    if not dry_run:
        remove_leftovers(store, found)
    for leftover in found:
        print(f"{leftover.name}: {leftover.reason}")
    print(f"{len(found)} leftover(s) {'found' if dry_run else 'removed'}")


def prune(out: str, *, keep: str = "30d", dry_run: Annotated[bool, Parameter(negative=())] = False) -> None:
    """Remove old runs of which each row has a newer one. The newest row of a uri never goes, however old it is.

    Parameters
    ----------
    out
        An output folder of `mlcls label`.
    keep
        The age from which on a run may go: 12h, 30d, 8w.
    dry_run
        Only say what would go.
    """
    from mlcls_ray.storage.store import Store
    from mlcls_ray.table.prune import find_superseded, parse_age, remove_runs

    store = Store(out)
    found = find_superseded(store, parse_age(keep))
    if not dry_run:
        remove_runs(store, found)
    for run_id in found:
        print(run_id)
    print(f"{len(found)} run(s) {'could go' if dry_run else 'removed'}")


def publish(out: str, *, format: Literal["delta", "iceberg", "lance"]) -> None:
    """Add what has been committed to a Delta, Iceberg or Lance table in OUT/FORMAT: one commit a run, and none twice.

    `mlcls label --format` does this after each run.

    Parameters
    ----------
    out
        An output folder of `mlcls label`.
    format
        The table's format.
    """
    from mlcls_ray.storage.store import Store
    from mlcls_ray.table.publish import publish as add

    store = Store(out)
    added = add(store, format)
    for run_id in added:
        print(run_id)
    print(f"{store.uri(format)}: {len(added)} run(s) added")


def relabel(
    out: str,
    *,
    threshold: Annotated[list[str], Parameter(negative=())],
    source: Annotated[str | None, Parameter(name="--from")] = None,
    run_id: str | None = None,
) -> None:
    """Cut labels at another threshold from the scores in the table, into a new run. Reads no image and runs no model.

    Parameters
    ----------
    out
        An output folder of `mlcls label`.
    threshold
        A number, class=number pairs, or both: `--threshold 0.5,person=0.7`; or a YAML or JSON file.
    source
        The run to take the scores from. Default: the newest row of each uri, over all runs.
    run_id
        Name of the new run. Default: the time.
    """
    from rich.console import Console

    from mlcls_ray.cli.summary import print_summary
    from mlcls_ray.labels.thresholds import parse_thresholds
    from mlcls_ray.storage.store import Store
    from mlcls_ray.table.relabel import relabel as cut

    store = Store(out)
    print_summary(store, cut(store, parse_thresholds(threshold), source, run_id), Console(), annotated=False)


def compact(out: str, *, run_id: str | None = None, rows: int | None = None) -> None:
    """Rewrite the table of committed runs in fewer, larger files. The rows stay the same; readers see the old files or the new ones.

    Parameters
    ----------
    out
        An output folder of `mlcls label`.
    run_id
        This run only. Default: all that are committed.
    rows
        Rows per file. Default: 250,000.
    """
    from mlcls_ray.storage.store import Store
    from mlcls_ray.table import compact as compaction
    from mlcls_ray.table.records import read_success, run_ids

    store = Store(out)
    for name in [run_id] if run_id else run_ids(store):
        before = read_success(store, name)
        if before is None and not run_id:
            continue
        after = compaction.compact(store, name, rows or compaction.ROWS)
        print(f"{name}: {len(before.fragments) if before else 0:,} files, now {len(after.fragments):,}")
