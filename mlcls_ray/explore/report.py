"""`mlcls report`: one HTML file about a label table."""

from __future__ import annotations

from mlcls_ray.errors import Status
from mlcls_ray.explore.facts import gather_facts
from mlcls_ray.explore.page import render
from mlcls_ray.explore.sheets import DEVICE_KINDS, choose_sheets, list_failed
from mlcls_ray.storage.uris import redact_url
from mlcls_ray.table.label_table import LabelTable

THUMBNAILS = 960
"""Of a page, where nothing else is asked for: some five megabytes of pictures."""
KIND_NAMES = {"surest": "surest", "nearest": "nearest to the threshold", "random": "random"}


def make_report(table: LabelTable, thumbnails: int = THUMBNAILS) -> str:
    """The page. `thumbnails`: how many at most."""
    facts = gather_facts(table)
    ok = facts.statuses.get(Status.OK.value, 0)
    used = [one.name for one in facts.labels if one.images]
    sheets = choose_sheets(table, used, thumbnails) if used and thumbnails else []
    uris = [one.uri for sheet in sheets for examples in sheet.examples.values() for one in examples]
    runs = len(table.successes)
    scope = f"The newest row of each image, over {runs:,} runs." if runs > 1 else f"Run {next(iter(table.successes))}."
    values = {
        "name": redact_url(table.store.root),
        "scope": scope,
        "facts": facts,
        "ok": ok,
        "failed": facts.rows - ok,
        "mean_labels": sum(one.images for one in facts.labels) / ok if ok else 0.0,
        "used": len(used),
        "sheets": sheets,
        "kinds": DEVICE_KINDS,
        "kind_names": KIND_NAMES,
        "errors": list_failed(table),
        "peak": max((rate for _, rate in facts.throughput), default=1.0),
    }
    return render("report.html.j2", table.store.s3, uris, thumbnails, values)
