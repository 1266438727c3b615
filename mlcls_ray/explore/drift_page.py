"""The HTML page of `mlcls drift`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from mlcls_ray.config import S3Options
from mlcls_ray.explore.page import render
from mlcls_ray.table.drift.counts import BINS, MOST_LABELS
from mlcls_ray.table.drift.report import DriftReport, LabelShift, Shift

FINEST = 1000
"""Shares are drawn on a logarithmic scale: one in so many is a tenth of the height, all of them the whole."""


class Column(NamedTuple):
    """One bin of a histogram: its name, its shares before and now, and the heights of its two bars in percent."""

    name: str
    before: float
    now: float
    height_before: float
    height_now: float


def make_page(report: DriftReport) -> str:
    """Make the page: one file that loads nothing. It shows no image."""
    per_image = [*(str(number) for number in range(MOST_LABELS)), f"{MOST_LABELS}+"]
    values = {
        "report": report,
        "title": {"drift": "Something has moved", "stable": "Nothing has moved", "unknown": "Too little to tell"}[
            report.verdict
        ],
        "histograms": {label.name: _columns(label.scores, _bins(label)) for label in report.labels if label.scores},
        "per_image": _columns(report.labels_per_image, per_image) if report.labels_per_image else [],
    }
    return render("drift.html.j2", S3Options(), [], 0, values)


def _bins(label: LabelShift) -> list[str]:
    """Name the bins of a label's histogram."""
    if label.scores is not None and len(label.scores.before) == 2:
        return ["with the label", "without it"]
    return [*(f"{place / BINS:.1f} to {(place + 1) / BINS:.1f}" for place in range(BINS)), "score not kept"]


def _columns(shift: Shift, names: Sequence[str]) -> list[Column]:
    """Make the columns of a histogram; a last one that is empty, for scores that were not kept, is left out."""
    before, now = sum(shift.before), sum(shift.now)
    columns = [
        Column(name, old / before, new / now, _height(old / before), _height(new / now))
        for name, old, new in zip(names, shift.before, shift.now, strict=True)
    ]
    return columns[:BINS] if len(columns) > BINS and not columns[-1].before and not columns[-1].now else columns


def _height(share: float) -> float:
    return 100 * math.log1p(FINEST * share) / math.log1p(FINEST)
