"""`mlcls diff`: find what changed from one label table to another, over the images that both have."""

from __future__ import annotations

from typing import NamedTuple

from mlcls_ray.explore.facts import score_histograms
from mlcls_ray.explore.page import render
from mlcls_ray.labels.stability import psi
from mlcls_ray.table.label_table import LabelTable
from mlcls_ray.table.views import committed_files, create_view, query_rows

EXAMPLES = 120
"""Images with other labels that are shown."""

JOINED = """
    CREATE OR REPLACE TEMP TABLE joined AS
    SELECT uri, before.status AS status_before, after.status AS status_after,
           before.uri IS NOT NULL AS is_before, after.uri IS NOT NULL AS is_after,
           coalesce(before.labels, []) AS labels_before, coalesce(after.labels, []) AS labels_after,
           list_filter(labels_after, lambda label: NOT list_contains(labels_before, label)) AS gained,
           list_filter(labels_before, lambda label: NOT list_contains(labels_after, label)) AS lost,
           len(gained) + len(lost) AS changes
    FROM labels AS before FULL JOIN newest('all_rows_after') AS after USING (uri)
"""
COUNTS = """
    SELECT count(*) FILTER (is_before AND is_after) AS images,
           count(*) FILTER (NOT is_after) AS only_before,
           count(*) FILTER (NOT is_before) AS only_after,
           count(*) FILTER (is_before AND is_after AND changes > 0) AS flipped,
           count(*) FILTER (is_before AND is_after AND status_before <> status_after) AS restatused
    FROM joined
"""
CLASSES = """
    SELECT label,
           count(*) FILTER (kind = 'before') AS before, count(*) FILTER (kind = 'after') AS after,
           count(*) FILTER (kind = 'gained') AS gained, count(*) FILTER (kind = 'lost') AS lost
    FROM (
        SELECT 'before' AS kind, unnest(labels_before) AS label FROM joined WHERE is_before AND is_after UNION ALL
        SELECT 'after', unnest(labels_after) FROM joined WHERE is_before AND is_after UNION ALL
        SELECT 'gained', unnest(gained) FROM joined WHERE is_before AND is_after UNION ALL
        SELECT 'lost', unnest(lost) FROM joined WHERE is_before AND is_after
    ) GROUP BY label
"""
FLIPS = """
    SELECT uri, labels_before AS before, labels_after AS after, gained, lost
    FROM joined WHERE is_before AND is_after AND changes > 0 ORDER BY changes DESC, uri LIMIT $count
"""


class ClassChange(NamedTuple):
    """The images with one label before and after, those that gained and lost it, and the population stability index of its scores.

    `psi` is None where scores were not kept.
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
    """The differences of two tables.

    `images` are in both; of them `flipped` have other labels and `restatused` another status. `examples` are those that changed most.
    """

    images: int
    only_before: int
    only_after: int
    flipped: int
    restatused: int
    classes: list[ClassChange]
    examples: list[Flip]


def find_differences(before: LabelTable, after: LabelTable) -> Differences:
    """Join two tables by uri, in DuckDB, and count."""
    database = before.database
    after.store.register_with(database)
    database.execute("DROP VIEW IF EXISTS all_rows_after")
    create_view(database, "all_rows_after", committed_files(after.store, after.successes))
    database.execute(JOINED)
    (counts,) = query_rows(database, COUNTS, {})
    flips = query_rows(database, FLIPS, {"count": EXAMPLES})
    return Differences(**counts, classes=_class_changes(before, after), examples=[Flip(**row) for row in flips])


def _class_changes(before: LabelTable, after: LabelTable) -> list[ClassChange]:
    """Count the changes of each class, those that changed most first."""
    counts = {row.pop("label"): row for row in query_rows(before.database, CLASSES, {})}
    unchanged = {"before": 0, "after": 0, "gained": 0, "lost": 0}
    shifts = _shifts(before, after)
    changes = [
        ClassChange(name=name, **counts.get(name, unchanged), psi=shifts.get(name)) for name in {*shifts, *counts}
    ]
    return sorted(changes, key=lambda change: (-(change.gained + change.lost), -(change.psi or 0.0), change.name))


def _shifts(before: LabelTable, after: LabelTable) -> dict[str, float]:
    """Return the population stability index of the scores of each class that both tables have."""
    old, new = score_histograms(before), score_histograms(after)
    return {name: psi(counts, new[name]) for name, counts in old.items() if name in new}


def make_page(before: LabelTable, after: LabelTable, differences: Differences, names: tuple[str, str]) -> str:
    """Make the HTML page. `names`: what to call the two tables."""
    uris = [flip.uri for flip in differences.examples]
    return render("diff.html.j2", after.store.s3, uris, EXAMPLES, {"differences": differences, "names": names})
