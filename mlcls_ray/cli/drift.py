"""The command `drift`: has what came in moved from what came in before?"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from mlcls_ray.cli.flags import NO_FLAGS, Output, S3Flags, flags, s3_options
from mlcls_ray.config_file import make_config
from mlcls_ray.errors import DRIFT_EXIT_CODE
from mlcls_ray.table.drift.options import DriftOptions
from mlcls_ray.terminal import plain, print_plain, showing_steps

if TYPE_CHECKING:
    from mlcls_ray.table.drift.report import DriftReport, LabelShift

    DriftFlags = Mapping[str, Any]
else:
    DriftFlags = Annotated[flags(DriftOptions), Parameter(name="*")]

SHOWN = 10
"""Labels that are printed."""


def drift(
    out: Output,
    *,
    options: DriftFlags = NO_FLAGS,
    json: Annotated[bool, Parameter(negative=())] = False,
    html: Path | None = None,
    s3: S3Flags = NO_FLAGS,
) -> None:
    """Compare what came in with a run against the runs before it: shares of labels, scores, errors. Exit code 5 if something has moved.

    `mlcls drift out --html drift.html`

    With no earlier run of the same model, or too few images, nothing is said to have moved, and the exit code is 0.

    Parameters
    ----------
    json
        Print one JSON object.
    html
        HTML page to write, with all labels, their histograms, and the runs; it opens from disk.
    """
    from mlcls_ray.cli.output import write_page
    from mlcls_ray.explore.drift_page import make_page
    from mlcls_ray.table.drift.report import find_drift
    from mlcls_ray.table.output import open_output

    chosen = make_config(DriftOptions, options)
    store = open_output(out, s3_options(s3))
    with showing_steps(on_terminal_only=True) as steps:
        steps.say("comparing the runs")
        report = find_drift(store, chosen)
    if json:
        print_plain(report.model_dump_json())
    else:
        _print(report)
    if html is not None:
        write_page(html, make_page(report).encode())
        print_plain(html, error=json)
    if report.verdict == "drift":
        sys.exit(DRIFT_EXIT_CODE)


def _print(report: DriftReport) -> None:
    """Print the labels that moved most, the statuses, what else changed, and the verdict in a last line."""
    from rich.table import Table

    from mlcls_ray.cli.console import Terminal, print_table

    labels = [label for label in report.labels if label.scores and (label.before or label.now or label.moved)]
    if labels:
        rows = Table(box=None, pad_edge=False)
        for column in ("label", "images before", "now", "share before", "now", "PSI", "chance", ""):
            rows.add_column(column, justify="left" if column in ("label", "") else "right")
        for label in labels[:SHOWN]:
            rows.add_row(*_cells(label))
        print_table(Terminal(), rows)
        if len(labels) > SHOWN:
            print(f"… and {len(labels) - SHOWN:,} more labels; --html FILE writes a page with all of them")
    for status in report.statuses:
        mark = ": rose" if status.rose else ""
        shares = f"{status.share_before:.2%} → {status.share_now:.2%}"
        print_plain(f"{status.name}: {status.before:,} → {status.now:,} ({shares}){mark}")
    for note in report.notes:
        print_plain(f"note: {note}")
    for run in report.left_out:
        print_plain(f"left out: run {run.run_id} {run.reason}")
    if report.is_sampled:
        print(f"the counts are of a part of the files, {report.images_before + report.images_now:,} labeled images")
    print_plain(report.sentence)


def _cells(label: LabelShift) -> list[str]:
    assert label.scores is not None
    return [
        plain(label.name),
        f"{label.before:,}",
        f"{label.now:,}",
        f"{label.share_before:.1%}",
        f"{label.share_now:.1%}",
        f"{label.scores.psi:.3f}",
        f"{label.scores.noise:.3f}",
        "moved" if label.moved else "",
    ]
