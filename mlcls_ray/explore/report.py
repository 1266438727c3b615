"""`mlcls report`: one HTML file about a label table."""

from __future__ import annotations

from mlcls_ray.errors import Status
from mlcls_ray.explore.facts import gather_facts
from mlcls_ray.explore.page import render
from mlcls_ray.explore.review import review
from mlcls_ray.explore.sheets import KINDS, choose_sheets, list_failed
from mlcls_ray.storage.uris import redact_url
from mlcls_ray.table.label_table import LabelTable

THUMBNAILS = 960
"""Thumbnails of a page, by default: about five megabytes."""
KIND_NAMES = {"surest": "surest", "nearest": "nearest to the threshold", "random": "random"}


def make_report(table: LabelTable, thumbnails: int = THUMBNAILS) -> str:
    """Make the HTML page, with at most `thumbnails` pictures."""
    facts = gather_facts(table)
    ok = facts.statuses.get(Status.OK.value, 0)
    used = [label.name for label in facts.labels if label.images]
    sheets = choose_sheets(table, used, thumbnails) if used and thumbnails else []
    uris = [example.uri for sheet in sheets for examples in sheet.examples.values() for example in examples]
    runs = len(table.successes)
    scope = f"The newest row of each image, over {runs:,} runs." if runs > 1 else f"Run {next(iter(table.successes))}."
    values = {
        "name": redact_url(table.store.root),
        "scope": scope,
        "vanished": table.left_out,
        "facts": facts,
        "ok": ok,
        "failed": facts.rows - ok,
        "mean_labels": sum(label.images for label in facts.labels) / ok if ok else 0.0,
        "used": len(used),
        "sheets": sheets,
        "kinds": KINDS,
        "kind_names": KIND_NAMES,
        "errors": list_failed(table),
        "review": review(table),
        "peak": max((rate for _, rate in facts.throughput), default=1.0),
    }
    return render("report.html.j2", table.store.s3, uris, thumbnails, values)
