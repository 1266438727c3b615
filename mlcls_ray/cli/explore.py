"""The commands that ask the label table."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from mlcls_ray.errors import UsageError

if TYPE_CHECKING:
    from mlcls_ray.table.label_table import LabelTable


def query(
    out: str, sql: str, *, format: Literal["table", "csv", "json", "parquet"] = "table", save: Path | None = None
) -> None:
    """Ask the label table in SQL (DuckDB): the view `labels` has the newest row of each uri, `all_rows` the rows of all runs.

    `mlcls query out "SELECT unnest(labels) AS label, count(*) AS images FROM labels GROUP BY 1 ORDER BY 2 DESC"`

    Parameters
    ----------
    out
        An output folder of `mlcls label`.
    sql
        The query.
    format
        A table to read, CSV, JSON lines, or Parquet.
    save
        A new file, instead of the screen; Parquet needs one.
    """
    import duckdb

    from mlcls_ray.table.label_table import open_labels
    from mlcls_ray.table.views import quoted

    if format == "parquet" and save is None:
        raise UsageError("--format parquet needs --save FILE")
    if save is not None and save.exists():
        raise UsageError(f"'{save}' exists already: remove it, or give another --save")
    table = open_labels(out)
    try:
        if format == "table" and save is None:
            table.sql(sql).show(max_width=200)
            return
        target = str(save) if save else "/dev/stdout"
        options = {
            "csv": "FORMAT csv, HEADER",
            "json": "FORMAT json",
            "parquet": "FORMAT parquet",
            "table": "FORMAT csv, HEADER",
        }
        sys.stdout.flush()
        table.database.execute(f"COPY ({sql.rstrip().rstrip(';')}) TO {quoted(target)} ({options[format]})")
    except duckdb.Error as error:
        raise UsageError(f"query: {str(error).strip().splitlines()[0]}") from None


def search(
    out: str,
    *,
    label: Annotated[list[str] | None, Parameter(negative=())] = None,
    like: str | None = None,
    without: Annotated[list[str] | None, Parameter(name=["--without", "--not"], negative=())] = None,
    min_score: float = 0.0,
    limit: int | None = None,
    copy: Path | None = None,
    link: Path | None = None,
) -> None:
    """List the images that have certain labels, surest first, or that look like one of them; or gather them in a folder.

    Parameters
    ----------
    out
        An output folder of `mlcls label`.
    label
        A label that the image has; several: all of them.
    like
        The uri of an image of the table, as it is there: the nearest ones first, by the cosine of their embeddings. Needs a run
        that was made with --embeddings.
    without
        A label that it does not have.
    min_score
        The least score of each wanted label.
    limit
        So many at most.
    copy
        Copy the images into this folder.
    link
        Link to them from this folder; local images only.
    """
    from mlcls_ray.table.label_table import open_labels
    from mlcls_ray.table.search import find_alike, find_images, gather

    if copy and link:
        raise UsageError("give --copy or --link, not both")
    if not label and not like:
        raise UsageError("give --label, --like, or both")
    table = open_labels(out)
    database = table.database
    if like:
        found = find_alike(database, like, label or [], without or [], min_score, limit)
    else:
        found = find_images(database, label or [], without or [], min_score, limit)
    for uri, score in found:
        print(f"{score:.3f}\t{uri}")
    folder = copy or link
    if folder:
        gather([uri for uri, _ in found], folder, link is not None, table.store.s3)
    print(f"{len(found):,} image(s)" + (f" in {folder}" if folder else ""), file=sys.stderr)


def report(out: str, *, run_id: str | None = None, save: Path | None = None, thumbnails: int = 960) -> None:
    """Write one HTML file about a label table that opens from disk: statuses, labels, scores, contact sheets, errors, throughput.

    Parameters
    ----------
    out
        An output folder of `mlcls label`.
    run_id
        This run only. Default: the newest row of each uri, over all runs.
    save
        The file. Default: report.html in the output folder.
    thumbnails
        How many small pictures the page holds, at most.
    """
    from mlcls_ray.explore.report import make_report
    from mlcls_ray.table.label_table import open_labels

    table = open_labels(out, run_id=run_id)
    page = make_report(table, thumbnails).encode()
    if save is not None:
        _write(save, page)
    else:
        table.store.write(REPORT, page)
    print(f"{save or table.store.uri(REPORT)}: {len(page) / 1e6:.1f} MB")


def diff(before: str, after: str, *, save: Path | None = None) -> None:
    """Compare two label tables over the images that both have: labels gained and lost, shifted scores, and which images flipped.

    Parameters
    ----------
    before
        An output folder of `mlcls label` (the newest row of each uri), or a run in one: OUT/runs/RUN_ID.
    after
        The other one.
    save
        An HTML file with the same and the flipped images, to be opened from disk.
    """
    from rich.console import Console
    from rich.table import Table

    from mlcls_ray.explore.diff import find_differences, make_page

    tables = _open_side(before), _open_side(after)
    found = find_differences(*tables)
    print(
        f"{found.images:,} images in both ({found.only_before:,} only before, {found.only_after:,} only after): "
        f"{found.flipped:,} with other labels, {found.restatused:,} with another status"
    )
    changed = [one for one in found.classes if one.gained or one.lost]
    shown = Table(box=None, pad_edge=False)
    for column in ("label", "before", "after", "gained", "lost", "PSI"):
        shown.add_column(column, justify="left" if column == "label" else "right")
    for one in changed[:20]:
        shift = "–" if one.psi is None else f"{one.psi:.3f}"
        shown.add_row(one.name, f"{one.before:,}", f"{one.after:,}", f"{one.gained:,}", f"{one.lost:,}", shift)
    if changed:
        Console().print(shown)
    if save is not None:
        _write(save, make_page(*tables, found, (before, after)).encode())
        print(save)


def export_labels(
    out: str,
    *,
    format: Literal["csv", "coco", "paddleclas", "labelstudio", "fiftyone"],
    save: Path,
    run_id: str | None = None,
) -> None:
    """Write the labels for other tools: one row an image that was labeled, the newest of each uri.

    Parameters
    ----------
    out
        An output folder of `mlcls label`.
    format
        csv, coco (JSON), paddleclas (a list file and its label.txt), labelstudio (tasks with predictions), fiftyone (a folder to import).
    save
        A new file; for paddleclas and fiftyone a new folder.
    run_id
        This run only. Default: the newest row of each uri, over all runs.
    """
    from mlcls_ray.table.export.formats import export
    from mlcls_ray.table.label_table import open_labels

    if save.exists():
        raise UsageError(f"'{save}' exists already: remove it, or give another --save")
    print(f"{save}: {export(open_labels(out, run_id=run_id), format, save):,} images")


REPORT = "report.html"


def _open_side(text: str) -> LabelTable:
    """An output folder, or one run in it."""
    from mlcls_ray.table import layout
    from mlcls_ray.table.label_table import open_labels

    out, separator, run_id = text.rstrip("/").rpartition(f"/{layout.RUNS}/")
    return open_labels(out, run_id=run_id) if separator and "/" not in run_id else open_labels(text)


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise UsageError(f"'{path}' cannot be written: {error.strerror}") from None
