"""Commands that read a label table: `report`, `query`, `search`, `diff`, `export-labels` and `status`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from mlcls_ray.cli.flags import NO_FLAGS, Corrected, OtherOutputs, Output, RunId, S3Flags, Vanished, s3_options
from mlcls_ray.cli.present import open_present, open_present_together
from mlcls_ray.errors import UsageError
from mlcls_ray.terminal import plain, showing_steps

if TYPE_CHECKING:
    from mlcls_ray.table.label_table import LabelTable


def query(
    out: Output,
    sql: str,
    *,
    format: Literal["table", "csv", "json", "parquet"] = "table",
    save: Path | None = None,
    others: OtherOutputs = None,
    corrected: Corrected = False,
    s3: S3Flags = NO_FLAGS,
) -> None:
    """Run an SQL query (DuckDB) over the label table. The view `labels` has the newest row of each URI, `all_rows` the rows of all runs.

    `mlcls query out "SELECT unnest(labels) AS label, count(*) AS images FROM labels GROUP BY 1 ORDER BY 2 DESC"`

    With --with, `labels` has one row per URI with the labels of all outputs.

    Parameters
    ----------
    sql
        The query.
    format
        Format of the result: a table to read, CSV, JSON lines, or Parquet (with --save).
    save
        New file to write the result to. Default: print it.
    """
    import contextlib
    import io
    import shutil

    import duckdb

    from mlcls_ray.cli.output import print_rows, save_rows
    from mlcls_ray.storage.store import check_new_target
    from mlcls_ray.table.label_table import open_labels

    if format == "parquet" and save is None:
        raise UsageError("--format parquet needs --save FILE")
    if save is not None:
        check_new_target(save)
    options = s3_options(s3)
    table = (
        open_labels([out, *others], options, corrected=corrected)
        if others
        else open_labels(out, options, corrected=corrected)
    )
    try:
        if save is not None:
            save_rows(table.database, sql, format, save)
        elif format == "table":
            rows = table.sql(sql)
            if rows is not None:  # a statement that returns rows
                shown = io.StringIO()
                with contextlib.redirect_stdout(shown):
                    rows.show(max_width=shutil.get_terminal_size((200, 50)).columns)
                print(plain(shown.getvalue(), keep_lines=True), end="")
        else:
            print_rows(table.database, sql, format)
    except duckdb.Error as error:
        raise UsageError(f"query: {str(error).strip().splitlines()[0]}") from None


def search(
    out: Output,
    *,
    label: Annotated[list[str] | None, Parameter(negative=())] = None,
    like: str | None = None,
    without: Annotated[list[str] | None, Parameter(name=["--without", "--not"], negative=())] = None,
    unlabeled: Annotated[bool, Parameter(negative=())] = False,
    min_score: float = 0.0,
    limit: int | None = None,
    copy: Path | None = None,
    link: Path | None = None,
    others: OtherOutputs = None,
    vanished: Vanished = False,
    s3: S3Flags = NO_FLAGS,
) -> None:
    """List the images with or without certain labels, highest score first, or those that look like an image; or collect them in a folder.

    `mlcls search out --label dog --without person --copy dogs`

    Parameters
    ----------
    label
        Label that the image must have. Given several times: it must have all of them.
    like
        An image: its URI as the table spells it, a path, or an image that is not in the table. Lists the most similar images first, by
        the cosine of their embeddings; needs a run with --embeddings.
    without
        Label that the image must not have.
    unlabeled
        Images without any label.
    min_score
        Smallest score of each label in --label; without --label, of the image's surest label.
    limit
        Largest number of images to list. Default: all.
    copy
        Copy the images into this folder.
    link
        Link to the images from this folder; local images only.
    """
    from mlcls_ray.table.example import find_example
    from mlcls_ray.table.search import find_alike, find_images, gather

    if copy and link:
        raise UsageError("give --copy or --link, not both")
    if not (label or like or without or unlabeled):
        raise UsageError("give --label, --not, --unlabeled, --like, or some of them")
    if label and unlabeled:
        raise UsageError("--unlabeled lists images without any label, and --label those with one: give one of them")
    if like and others:
        raise UsageError("--like compares the embeddings of one model: leave --with out")
    wanted = (label or [], without or [], min_score, limit, unlabeled)
    if like:
        table = open_present(out, s3, vanished=vanished)
        with showing_steps(on_terminal_only=True) as steps:
            example = find_example(table, like, steps)
        store_s3, matches = table.s3, find_alike(table.database, example, *wanted)
    else:
        together = open_present_together(out, others, s3, vanished)
        store_s3, matches = together.s3, find_images(together.database, *wanted)
    for uri, score in matches:
        print(f"{score:.3f}\t{plain(uri)}")
    folder = copy or link
    if folder:
        gather([uri for uri, _ in matches], folder, link is not None, store_s3)
    print(f"{len(matches):,} image(s)" + (f" in {folder}" if folder else ""), file=sys.stderr)


def report(
    out: Output,
    *,
    run_id: RunId = None,
    save: Path | None = None,
    thumbnails: int = 960,
    corrected: Corrected = False,
    vanished: Vanished = False,
    s3: S3Flags = NO_FLAGS,
) -> None:
    """Write one HTML page about a label table: statuses, labels, scores, contact sheets, errors and throughput. It opens from disk.

    `mlcls report out`

    Parameters
    ----------
    save
        File to write. Default: report.html in the output folder.
    thumbnails
        Largest number of thumbnails on the page.
    """
    from mlcls_ray.cli.output import write_page
    from mlcls_ray.explore.report import make_report

    table = open_present(out, s3, run_id, vanished, corrected)
    with showing_steps(on_terminal_only=True) as steps:
        steps.say(f"reading the table and making up to {thumbnails:,} thumbnails")
        page = make_report(table, thumbnails).encode()
    if save is not None:
        write_page(save, page)
    else:
        table.store.write(REPORT, page)
    print(f"{save or table.store.uri(REPORT)}: {len(page) / 1e6:.1f} MB")


def diff(before: str, after: str, *, save: Path | None = None, s3: S3Flags = NO_FLAGS) -> None:
    """Compare two label tables over the images that both have: labels gained and lost, shifted scores, and images with other labels.

    `mlcls diff out/runs/spring out/runs/summer --save diff.html`

    Parameters
    ----------
    before
        An output folder of `mlcls label` (the newest row of each URI), or a run in one: OUT/runs/RUN_ID.
    after
        The output folder or run to compare it with.
    save
        HTML page to write, with the same numbers and the images whose labels changed; it opens from disk.
    """
    from rich.table import Table

    from mlcls_ray.cli.console import Terminal, print_table
    from mlcls_ray.cli.output import write_page
    from mlcls_ray.explore.diff import find_differences, make_page

    tables = _open_side(before, s3), _open_side(after, s3)
    with showing_steps(on_terminal_only=True) as steps:
        steps.say("comparing the rows")
        differences = find_differences(*tables)
    print(
        f"{differences.images:,} images in both ({differences.only_before:,} only before, {differences.only_after:,} only after): "
        f"{differences.flipped:,} with other labels, {differences.restatused:,} with another status"
    )
    changed = [label for label in differences.classes if label.gained or label.lost]
    rows = Table(box=None, pad_edge=False)
    for column in ("label", "before", "after", "gained", "lost", "PSI"):
        rows.add_column(column, justify="left" if column == "label" else "right")
    for label in changed[:SHOWN_CLASSES]:
        shift = "–" if label.psi is None else f"{label.psi:.3f}"
        rows.add_row(
            plain(label.name), f"{label.before:,}", f"{label.after:,}", f"{label.gained:,}", f"{label.lost:,}", shift
        )
    if changed:
        print_table(Terminal(), rows)
    if len(changed) > SHOWN_CLASSES:
        print(f"… and {len(changed) - SHOWN_CLASSES:,} more classes; --save FILE writes a page with all of them")
    if save is not None:
        write_page(save, make_page(*tables, differences, (before, after)).encode())
        print(save)


def export_labels(
    out: Output,
    *,
    format: Literal["csv", "coco", "paddleclas", "labelstudio", "fiftyone"],
    save: Path,
    run_id: RunId = None,
    corrected: Corrected = False,
    vanished: Vanished = False,
    s3: S3Flags = NO_FLAGS,
) -> None:
    """Write the labels for other tools: one entry for each labeled image, from the newest row of its URI.

    Parameters
    ----------
    format
        csv, coco (JSON), paddleclas (a list file and its label.txt), labelstudio (tasks with predictions), or fiftyone (a folder to
        import).
    save
        New file to write; for paddleclas and fiftyone a new folder.
    """
    from mlcls_ray.table.export.formats import export

    print(f"{save}: {export(open_present(out, s3, run_id, vanished, corrected), format, save):,} images")


def status(
    out: Output, *, last: int = 10, json: Annotated[bool, Parameter(negative=())] = False, s3: S3Flags = NO_FLAGS
) -> None:
    """Show the state of an output's newest runs, also of one that is running: rows done, rate, errors by kind and time left.

    `mlcls status out`

    Parameters
    ----------
    last
        Number of runs to show.
    json
        Print one JSON object per run instead of a table.
    """
    from mlcls_ray.cli.summary import print_status
    from mlcls_ray.table.output import open_output
    from mlcls_ray.table.records import no_runs
    from mlcls_ray.table.status import newest_status

    store = open_output(out, s3_options(s3))
    runs = newest_status(store, last)
    if not runs:
        raise no_runs(store, "runs")
    if json:
        for run in runs:
            print(run.model_dump_json())
        return
    print_status(runs)


REPORT = "report.html"
SHOWN_CLASSES = 20
"""Classes that `mlcls diff` prints."""


def _open_side(text: str, s3: Mapping[str, Any]) -> LabelTable:
    """Open an output folder, or one run in it."""
    from mlcls_ray.table import layout
    from mlcls_ray.table.label_table import open_labels

    out, separator, run_id = text.rstrip("/").rpartition(f"/{layout.RUNS}/")
    is_run = bool(separator) and "/" not in run_id
    return open_labels(out, s3_options(s3), run_id) if is_run else open_labels(text, s3_options(s3))
