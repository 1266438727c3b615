"""Commands that maintain an output: `relabel`, `verify`, `compact`, `prune`, `gc` and `publish`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from mlcls_ray.cli.flags import NO_FLAGS, Output, S3Flags, s3_options
from mlcls_ray.errors import RunError, UsageError
from mlcls_ray.registry import TABLE_FORMATS
from mlcls_ray.terminal import print_plain, showing_steps

DryRun = Annotated[bool, Parameter(negative=(), show_default=False, help="Only print what would be removed.")]
if TYPE_CHECKING:
    PublishedFormat = str
else:
    PublishedFormat = Annotated[Literal[tuple(TABLE_FORMATS)], Parameter(help="Format of the table.")]


def verify(out: Output, *, run_id: str | None = None, s3: S3Flags = NO_FLAGS) -> None:
    """Check that each manifest row is in exactly one label row, and check checksums and schema. Exit code 1 if something is wrong.

    Parameters
    ----------
    run_id
        Check this run only. Default: all runs.
    """
    from mlcls_ray.table.output import open_output
    from mlcls_ray.table.records import run_ids
    from mlcls_ray.table.verify import verify as find_problems

    store = open_output(out, s3_options(s3))
    with showing_steps(on_terminal_only=True) as steps:
        steps.say("checking the files and rows of all runs" if run_id is None else f"checking run {run_id}")
        problems = find_problems(store, run_id)
    for problem in problems:
        print_plain(problem)
    if problems:
        sys.exit(RunError.exit_code)
    runs = 1 if run_id else len(run_ids(store))
    print(f"ok: {runs} run(s), each manifest row in exactly one label row, all checksums match")


def gc(out: Output, *, dry_run: DryRun = False, s3: S3Flags = NO_FLAGS) -> None:
    """Remove the remains of killed runs: half-written files, unfinished listings, and fragments that no run committed.

    Runs that can be resumed or are running keep their files.
    """
    from mlcls_ray.table.gc import find_leftovers, remove_leftovers
    from mlcls_ray.table.output import open_output

    store = open_output(out, s3_options(s3))
    leftovers = find_leftovers(store)
    if not dry_run:
        remove_leftovers(store, leftovers)
    for leftover in leftovers:
        print_plain(f"{leftover.name}: {leftover.reason}")
    print(f"{len(leftovers)} leftover(s) {'found' if dry_run else 'removed'}")


def prune(out: Output, *, keep: str = "30d", dry_run: DryRun = False, s3: S3Flags = NO_FLAGS) -> None:
    """Remove old runs whose rows all have a newer row. The newest row of a URI is always kept, however old it is.

    Parameters
    ----------
    keep
        Keep all runs that are younger than this: 12h, 30d, 8w.
    """
    from mlcls_ray.table.output import open_output
    from mlcls_ray.table.prune import find_superseded, parse_age, remove_runs

    store = open_output(out, s3_options(s3))
    with showing_steps(on_terminal_only=True) as steps:
        steps.say("looking for runs whose rows all have a newer row")
        superseded = find_superseded(store, parse_age(keep))
        if not dry_run:
            remove_runs(store, superseded)
    for run_id in superseded:
        print_plain(run_id)
    print(f"{len(superseded)} run(s) {'could go' if dry_run else 'removed'}")


def publish(out: Output, *, format: PublishedFormat, s3: S3Flags = NO_FLAGS) -> None:
    """Add the committed runs to a table in OUT/FORMAT: one commit per run, and no run twice.

    `mlcls label --format` does this after each run.
    """
    from mlcls_ray.table.output import open_output
    from mlcls_ray.table.publish import publish as add

    store = open_output(out, s3_options(s3))
    added = add(store, format)
    for run_id in added:
        print_plain(run_id)
    print(f"{store.uri(format)}: {len(added)} run(s) added")


def relabel(
    out: Output,
    *,
    threshold: Annotated[list[str] | None, Parameter(negative=())] = None,
    map: str | None = None,
    source: Annotated[str | None, Parameter(name="--from")] = None,
    run_id: str | None = None,
    s3: S3Flags = NO_FLAGS,
) -> None:
    """Apply other thresholds, or a label map, to the scores in the table, and write the labels as a new run. No image is read.

    `mlcls relabel out --threshold 0.5,person=0.7`

    What is not given stays as it was in the newest run.

    Parameters
    ----------
    threshold
        New thresholds: a number, class=number pairs as in 0.5,person=0.7, or a YAML or JSON file.
    map
        A YAML or JSON file with new names for labels, as in car: vehicle; null drops a label. none: the model's own names.
    source
        Run to take the scores from. Default: the newest row of each URI, over all runs.
    run_id
        Name of the new run. Default: the time.
    """
    from mlcls_ray.cli.console import Terminal
    from mlcls_ray.cli.summary import print_summary
    from mlcls_ray.labels.label_map import parse_label_map
    from mlcls_ray.labels.thresholds import parse_thresholds
    from mlcls_ray.table.output import open_output
    from mlcls_ray.table.relabel import relabel as select_anew

    if threshold is None and map is None:
        raise UsageError("relabel: give --threshold, --map, or both")
    thresholds = parse_thresholds(threshold, "--threshold")
    label_map = None if map is None else parse_label_map(map, "--map")
    store = open_output(out, s3_options(s3))
    with showing_steps(on_terminal_only=True) as steps:
        steps.say("selecting the labels anew")
        success = select_anew(store, thresholds, source, run_id, label_map)
        print_summary(store, success, Terminal(), annotated=False, steps=steps)


def compact(out: Output, *, run_id: str | None = None, rows: int | None = None, s3: S3Flags = NO_FLAGS) -> None:
    """Merge the small files of committed runs into larger ones. The rows stay the same; readers see the old files or the new ones.

    Parameters
    ----------
    run_id
        This run only. Default: all committed runs.
    rows
        Rows per file. Default: 250,000.
    """
    from mlcls_ray.table import compact as compaction
    from mlcls_ray.table.corrections import merge_corrections
    from mlcls_ray.table.output import open_output
    from mlcls_ray.table.records import read_success, run_ids

    store = open_output(out, s3_options(s3))
    for name in [run_id] if run_id else run_ids(store):
        before = read_success(store, name)
        if before is None and not run_id:
            continue
        with showing_steps(on_terminal_only=True) as steps:
            steps.say(f"merging the files of run {name}")
            after = compaction.compact(store, name, rows or compaction.ROWS)
        print(f"{name}: {len(before.fragments) if before else 0:,} file(s) before, {len(after.fragments):,} now")
    if not run_id and (merged := merge_corrections(store)):
        print(f"corrections: {merged:,} file(s) before, 1 now")
