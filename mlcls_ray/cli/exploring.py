"""The commands that ask the label table."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from mlcls_ray.errors import UsageError


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

    from mlcls_ray.label_table import open_labels
    from mlcls_ray.runs.ledger_view import quoted

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
    label: Annotated[list[str], Parameter(negative=())],
    without: Annotated[list[str] | None, Parameter(name=["--without", "--not"], negative=())] = None,
    min_score: float = 0.0,
    limit: int | None = None,
    copy: Path | None = None,
    link: Path | None = None,
) -> None:
    """List the images that have certain labels, surest first; or gather them in a folder.

    Parameters
    ----------
    out
        An output folder of `mlcls label`.
    label
        A label that the image has; several: all of them.
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
    from mlcls_ray.label_table import open_labels
    from mlcls_ray.runs.finding import find_images, gather

    if copy and link:
        raise UsageError("give --copy or --link, not both")
    found = find_images(open_labels(out).database, label, without or [], min_score, limit)
    for uri, score in found:
        print(f"{score:.3f}\t{uri}")
    folder = copy or link
    if folder:
        gather([uri for uri, _ in found], folder, as_links=link is not None)
    print(f"{len(found):,} image(s)" + (f" in {folder}" if folder else ""), file=sys.stderr)
