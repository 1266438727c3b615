"""Terminal output about runs: the summary of one that ended, and the state of several."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from functools import partial

import pyarrow.compute as pc
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mlcls_ray import schema
from mlcls_ray.cli.console import Terminal
from mlcls_ray.errors import Status
from mlcls_ray.storage.store import Store
from mlcls_ray.storage.uris import redact_url
from mlcls_ray.table import layout
from mlcls_ray.table.fragments import fragment_paths
from mlcls_ray.table.records import Success
from mlcls_ray.table.status import RunStatus
from mlcls_ray.terminal import plain

TOP_LABELS = 10
"""Number of most frequent labels in the summary."""
EXAMPLES = 12
"""A run of at most this many images is printed image by image."""


def print_summary(store: Store, success: Success, console: Console, annotated: bool) -> None:
    """Print counts by status, the rate, the most frequent labels, the path of the table, and a line of Python that opens it."""
    write = partial(console.print, soft_wrap=True)
    if success.rows <= EXAMPLES:
        _print_images(store, success, console)
    counts = Counter(success.statuses)
    ok = counts.pop(Status.OK.value, 0)
    failed = "".join(f", {count:,} {status}" for status, count in counts.most_common())
    rate = (
        f" in {success.seconds:.1f} s ({success.rows / success.seconds:.0f} images/s, including the start of the workers)"
        if success.seconds
        else ""
    )
    images = Text(f"{success.rows:,} {'image' if success.rows == 1 else 'images'}", "bold")
    write(Text.assemble(images, f": {ok:,} ok{failed}{rate}"))
    top = label_counts(store, success).most_common(TOP_LABELS)
    if top:
        write("top labels: " + ", ".join(f"{plain(name)} {count:,}" for name, count in top))
    total_s = sum(success.stage_seconds.values())
    if total_s and success.rows > EXAMPLES:
        shares = sorted(success.stage_seconds.items(), key=lambda item: -item[1])
        write(
            f"{shares[0][0]}-bound: "
            + ", ".join(f"{stage} {100 * seconds / total_s:.0f} %" for stage, seconds in shares)
        )
    path = store.uri(layout.labels_folder(success.run_id))
    write(f"label table: {plain(redact_url(path))}")
    if annotated:
        folder = store.uri(layout.annotated_folder(success.run_id))
        write(f"annotated:   {plain(redact_url(folder))}")
    write(
        f"open it:     import pandas; table = pandas.read_parquet({plain(json.dumps(redact_url(path), ensure_ascii=False))})"
    )


def print_status(runs: Sequence[RunStatus]) -> None:
    """Print a line per run."""
    table = Table(box=None, pad_edge=False)
    for column in ("run", "state", "done", "of", "per second", "left", "not ok"):
        table.add_column(column, justify="left" if column in ("run", "state", "not ok") else "right", overflow="fold")
    for run in runs:
        failures = ", ".join(
            f"{count:,} {status}" for status, count in run.statuses.items() if status != Status.OK.value
        )
        rate = "–" if run.rate is None else f"{run.rate:.0f}"
        left = "–" if run.seconds_left is None else f"{run.seconds_left / 60:.0f} min"
        table.add_row(plain(run.run_id), run.state, f"{run.done:,}", f"{run.rows:,}", rate, left, failures or "–")
    Terminal().print(table)


def label_counts(store: Store, success: Success) -> Counter[str]:
    """Count the images with each label. Reads this one column, a fragment at a time."""
    counts: Counter[str] = Counter()
    for path in fragment_paths(store, success):
        rows = store.read_columns(path, [schema.LABELS])
        labels = pc.list_flatten(rows.column(0))
        for entry in pc.value_counts(labels.combine_chunks()).to_pylist():
            counts[entry["values"]] += entry["counts"]
    return counts


def _print_images(store: Store, success: Success, console: Console) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("image", overflow="fold")
    table.add_column("labels", overflow="fold")
    columns = [schema.URI, schema.STATUS, schema.ERROR_MESSAGE, schema.LABELS, schema.SCORES]
    for path in fragment_paths(store, success):
        rows = store.read_columns(path, columns).to_pylist()
        for row in sorted(rows, key=lambda row: str(row[schema.URI])):
            name = plain(redact_url(row[schema.URI]).rpartition("/")[2])
            if row[schema.STATUS] == Status.OK.value:
                pairs = zip(row[schema.LABELS], row[schema.SCORES], strict=True)
                labels = ", ".join(f"{plain(label)} {score:.2f}" for label, score in pairs)
                text = Text(labels) if labels else Text("no label above the threshold", "dim")
            else:
                text = Text.assemble((row[schema.STATUS], "red"), f": {plain(row[schema.ERROR_MESSAGE])}")
            table.add_row(name, text)
    console.print(table)
    console.print()
