"""Terminal output about runs: the summary of one that ended, and the state of several."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence

import pyarrow.compute as pc
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mlcls_ray import schema
from mlcls_ray.cli.console import Terminal, print_lines, print_table
from mlcls_ray.errors import NAMED_FAILURES, Status
from mlcls_ray.storage.inputs.left_out import name_extras, name_left_out
from mlcls_ray.storage.store import Store
from mlcls_ray.storage.uris import redact_url
from mlcls_ray.table import layout
from mlcls_ray.table.fragments import fragment_paths
from mlcls_ray.table.ledger import failures as count_failures
from mlcls_ray.table.records import InputChanges, Success, read_record
from mlcls_ray.table.status import RunStatus
from mlcls_ray.terminal import SILENT, Steps, plain

TOP_LABELS = 10
"""Number of most frequent labels in the summary."""
EXAMPLES = 12
"""A run of at most this many images is printed image by image."""
FAILED = "SELECT uri, status, error_message FROM labels WHERE status <> 'ok'"
ACTIVITIES = {"fetch": "fetching", "decode": "decoding", "decode_on_card": "decoding on the device", "score": "scoring"}
"""The activities of a worker, by the names in `_SUCCESS`."""


def print_summary(
    store: Store,
    success: Success,
    console: Console,
    annotated: bool,
    *,
    is_new: bool = True,
    steps: Steps = SILENT,
    is_for_log: bool = False,
) -> None:
    """Print counts by status, the rate, the failures, the most frequent labels, and where the table is and how to look at it.

    Args:
        is_new: the run was committed just now, not by an earlier command.
        steps: told what is done before the first line.
        is_for_log: leave out the lines that help a person who sees the summary for the first time.
    """
    steps.say("reading the labels", on_terminal_only=True)
    record, out = read_record(store, success.run_id), redact_url(store.root)
    images = _image_table(store, success) if success.rows <= EXAMPLES else None
    failures = [] if images else first_failures(store, success)
    top = label_counts(store, success).most_common(TOP_LABELS)
    steps.pause()

    def write(text: Text | str) -> None:
        console.print(text, soft_wrap=not console.is_terminal)  # a terminal would break its lines within words

    def write_path(name: str, text: str) -> None:
        console.print(f"{name:12} {text}", soft_wrap=True)  # it can be copied as one line

    if images:
        print_table(console, images)
        console.print()
    if not is_new:
        write(
            f"run '{plain(success.run_id)}' was committed before, {success.committed_at:%Y-%m-%d %H:%M} UTC: nothing to do"
        )
    is_relabeling = bool(record and record.relabeled_from)
    time = _time(success, is_relabeling) if is_new else ""
    write(
        Text.assemble(
            (f"{success.rows:,} {'image' if success.rows == 1 else 'images'}", "bold"), f": {_counts(success)}{time}"
        )
    )
    if record and record.changes:
        write(changes_line(record.changes))
    if record and record.left_out:
        write(f"left out by their names, not read: {plain(name_left_out(record.left_out))}")
        if extras := name_extras(record.left_out):
            write(f"  can be read: {extras}")
    for line in failures:
        write(f"  {line}")
    if failures and (rest := count_failures(success.fragments) - len(failures)) > 0:
        write_path(f"  and {rest:,} more:", f'mlcls query {_shell(out)} "{FAILED}"')
    if top:
        write("top labels: " + ", ".join(f"{plain(name)} {count:,}" for name, count in top))
    if success.rows > EXAMPLES and (shares := _shares(success.stage_seconds)):
        write(shares)
    path = redact_url(store.uri(layout.labels_folder(success.run_id)))
    write_path("label table:", plain(path))
    if annotated:
        write_path("annotated:", plain(redact_url(store.uri(layout.annotated_folder(success.run_id)))))
    if not is_for_log:
        write_path(
            "open it:", f"import pandas; table = pandas.read_parquet({plain(json.dumps(path, ensure_ascii=False))})"
        )
        write_path("look at it:", f"mlcls report {_shell(out)}")


def print_status(runs: Sequence[RunStatus]) -> None:
    """Print a line per run."""
    table = Table(box=None, pad_edge=False)
    for column in ("run", "state", "done", "of", "per second", "left", "not ok"):
        table.add_column(column, justify="left" if column in ("run", "state", "not ok") else "right")
    for run in runs:
        failures = ", ".join(
            f"{count:,} {status}" for status, count in run.statuses.items() if status != Status.OK.value
        )
        rate = "–" if run.rate is None else rate_text(run.rate)
        left = "–" if run.seconds_left is None else duration(run.seconds_left)
        table.add_row(plain(run.run_id), run.state, f"{run.done:,}", f"{run.rows:,}", rate, left, failures or "–")
    print_lines(Terminal(), table)  # a run's name that is broken over two lines can be neither copied nor cut out


def duration(seconds: float) -> str:
    """Write a duration in the unit that fits it."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def first_failures(store: Store, success: Success, most: int = NAMED_FAILURES) -> list[str]:
    """Describe the first rows that are not `ok`: uri, status and message. Reads fragments that have some, until there are enough."""
    found: list[str] = []
    with_failures = [fragment.name for fragment in success.fragments if count_failures([fragment])]
    for name in with_failures:
        if len(found) >= most:
            break
        rows = store.read_columns(
            f"{layout.labels_folder(success.run_id)}/{name}", [schema.URI, schema.STATUS, schema.ERROR_MESSAGE]
        )
        failed = rows.filter(pc.not_equal(rows.column(schema.STATUS), Status.OK.value))
        for row in failed.slice(0, most - len(found)).to_pylist():
            message = f": {row[schema.ERROR_MESSAGE]}" if row[schema.ERROR_MESSAGE] else ""
            found.append(plain(f"{redact_url(row[schema.URI])}: {row[schema.STATUS]}{message}"))
    return found


def label_counts(store: Store, success: Success) -> Counter[str]:
    """Count the images with each label. Reads this one column, a fragment at a time."""
    counts: Counter[str] = Counter()
    for path in fragment_paths(store, success):
        rows = store.read_columns(path, [schema.LABELS])
        labels = pc.list_flatten(rows.column(0))
        for entry in pc.value_counts(labels.combine_chunks()).to_pylist():
            counts[entry["values"]] += entry["counts"]
    return counts


def _image_table(store: Store, success: Success) -> Table:
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
    return table


def _counts(success: Success) -> str:
    counts = Counter(success.statuses)
    ok = counts.pop(Status.OK.value, 0)
    return f"{ok:,} ok" + "".join(f", {count:,} {status}" for status, count in counts.most_common())


def _time(success: Success, is_relabeling: bool) -> str:
    """Tell how long it took, and the rate of what was labeled in that time: a command that resumes a run finds rows of earlier ones."""
    if success.per_s is None:
        return ""
    within = f" in {success.seconds:.1f} s"
    if is_relabeling:
        return within
    before = success.rows - success.labeled_rows
    rate = f" ({rate_text(success.per_s)} images/s, including the start of the workers)"
    return f"; {success.labeled_rows:,} of them{within}{rate}, {before:,} before" if before else within + rate


def rate_text(per_s: float) -> str:
    """Round a rate; one below ten keeps a decimal."""
    return f"{per_s:,.0f}" if per_s >= 9.95 else f"{per_s:.1f}"


def changes_line(changes: InputChanges) -> str:
    """Tell what an incremental job found, in one line."""
    other = f", {changes.other_model:,} of another model" if changes.other_model else ""
    return (
        f"{changes.listed:,} listed: {changes.new:,} new, {changes.changed:,} changed, {changes.retried:,} retried{other}, "
        f"{changes.vanished:,} vanished"
    )


def _shares(stage_seconds: Mapping[str, float]) -> str:
    """Tell where the workers' time went; nothing for a run that was not measured."""
    total = sum(stage_seconds.values())
    shares = sorted(stage_seconds.items(), key=lambda item: -item[1])
    named = (f"{ACTIVITIES.get(stage, stage)} {100 * seconds / total:.0f} %" for stage, seconds in shares if total)
    return f"where the time went: {', '.join(named)}" if total else ""


def _shell(text: str) -> str:
    """Quote a word for a shell, as text that a terminal can show."""
    return plain(shlex.quote(text))
