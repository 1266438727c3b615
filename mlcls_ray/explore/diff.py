"""`mlcls diff`: what changed from one label table to another, over the images that both have."""

from __future__ import annotations

import math
from typing import NamedTuple

from mlcls_ray import schema
from mlcls_ray.explore.facts import score_histograms
from mlcls_ray.explore.page import render
from mlcls_ray.table.label_table import LabelTable
from mlcls_ray.table.views import LABELS, committed_files, create_label_views

EXAMPLES = 120
"""Flipped images that are shown."""
AFTER = "_after"
"""What the second table's views are called more, beside the first one's."""
SMOOTHING = 0.5
"""Added to each count, so that an empty bin does not make PSI infinite."""


class ClassChange(NamedTuple):
    """One class: images that have the label before and after, gained it, lost it; and the population stability index of its scores
    (None where scores were not kept).
    """

    name: str
    before: int
    after: int
    gained: int
    lost: int
    psi: float | None


class Flip(NamedTuple):
    """An image whose labels changed."""

    uri: str
    before: list[str]
    after: list[str]
    gained: list[str]
    lost: list[str]


class Differences(NamedTuple):
    """`images` are in both; `flipped` have other labels, `restatused` another status; `examples` are those that changed most."""

    images: int
    only_before: int
    only_after: int
    flipped: int
    restatused: int
    classes: list[ClassChange]
    examples: list[Flip]


def find_differences(before: LabelTable, after: LabelTable) -> Differences:
    """Joined by uri, in DuckDB."""
    database = before.database
    if before.store.is_local:
        after.store.register_with(database)
    create_label_views(database, committed_files(after.store, after.successes), AFTER)
    columns = f"{schema.URI}, {schema.STATUS}, {schema.LABELS}"
    database.execute(
        f"""
        CREATE TEMP TABLE joined AS
        SELECT {schema.URI}, one.{schema.STATUS} AS status_before, other.{schema.STATUS} AS status_after,
               coalesce(one.{schema.LABELS}, []) AS labels_before, coalesce(other.{schema.LABELS}, []) AS labels_after,
               one.{schema.URI} IS NOT NULL AS is_before, other.{schema.URI} IS NOT NULL AS is_after
        FROM (SELECT {columns} FROM {LABELS}) AS one
        FULL JOIN (SELECT {columns} FROM {LABELS}{AFTER}) AS other USING ({schema.URI})
        """
    )
    gained = "list_filter(labels_after, lambda x: NOT list_contains(labels_before, x))"
    lost = "list_filter(labels_before, lambda x: NOT list_contains(labels_after, x))"
    both = f"FROM (SELECT *, {gained} AS gained, {lost} AS lost FROM joined WHERE is_before AND is_after)"
    (counts,) = database.execute(
        """SELECT count(*) FILTER (is_before AND is_after), count(*) FILTER (NOT is_after), count(*) FILTER (NOT is_before),
           count(*) FILTER (is_before AND is_after AND status_before <> status_after) FROM joined"""
    ).fetchall()
    (flipped,) = database.execute(f"SELECT count(*) {both} WHERE len(gained) + len(lost) > 0").fetchall()
    found = {
        name: dict(
            database.execute(
                f"SELECT label, count(*) FROM (SELECT unnest({name}) AS label {both}) GROUP BY 1"
            ).fetchall()
        )
        for name in ("labels_before", "labels_after", "gained", "lost")
    }
    examples = database.execute(
        f"SELECT {schema.URI}, labels_before, labels_after, gained, lost {both} WHERE len(gained) + len(lost) > 0 "
        f"ORDER BY len(gained) + len(lost) DESC, {schema.URI} LIMIT {EXAMPLES}"
    ).fetchall()
    shifts = _shifts(before, after)
    names = sorted({*shifts, *(name for counted in found.values() for name in counted)})
    classes = [
        ClassChange(
            name=name,
            before=found["labels_before"].get(name, 0),
            after=found["labels_after"].get(name, 0),
            gained=found["gained"].get(name, 0),
            lost=found["lost"].get(name, 0),
            psi=shifts.get(name),
        )
        for name in names
    ]
    classes.sort(key=lambda one: (-(one.gained + one.lost), -(one.psi or 0.0), one.name))
    return Differences(
        counts[0], counts[1], counts[2], flipped[0], counts[3], classes, [Flip(*row) for row in examples]
    )


def _shifts(before: LabelTable, after: LabelTable) -> dict[str, float]:
    histograms = [
        score_histograms(one, one.database.execute(f"SELECT count(*) FROM {LABELS}").fetchall()[0][0])
        for one in (before, after)
    ]
    return {name: psi(counts, histograms[1][name]) for name, counts in histograms[0].items() if name in histograms[1]}


def psi(before: list[int], after: list[int]) -> float:
    """Population stability index of two histograms over the same bins: Σ (q − p) ln(q / p)."""
    shares = [
        [(count + SMOOTHING) / (sum(counts) + SMOOTHING * len(counts)) for count in counts]
        for counts in (before, after)
    ]
    return math.fsum((q - p) * math.log(q / p) for p, q in zip(*shares, strict=True))


def make_page(before: LabelTable, after: LabelTable, found: Differences, names: tuple[str, str]) -> str:
    uris = [one.uri for one in found.examples]
    return render("diff.html.j2", after.store.s3, uris, EXAMPLES, {"found": found, "names": names})
