"""Which images a person should look at: for each label the surest, the nearest to the threshold, and some at random; and the errors."""

from __future__ import annotations

from typing import NamedTuple

from mlcls_ray import schema
from mlcls_ray.table.label_table import THRESHOLDS, LabelTable
from mlcls_ray.table.views import LABELS

DEVICE_KINDS = ("surest", "nearest", "random")
EACH = 6
"""Images of a kind under a label, where the budget allows."""
ERRORS = 200


class Example(NamedTuple):
    """One image under a label; `threshold` is None where it is not known."""

    uri: str
    score: float
    threshold: float | None = None


class Sheet(NamedTuple):
    """The examples of one label by kind."""

    label: str
    examples: dict[str, list[Example]]


class Failed(NamedTuple):
    """A row that is not `ok`."""

    uri: str
    status: str
    message: str


def choose_sheets(table: LabelTable, labels: list[str], budget: int) -> list[Sheet]:
    """Examples for as many labels (the first ones first) as `budget` images allow; at least one a kind and label.

    DuckDB keeps the best few of each label while it reads: nothing is sorted.
    """
    each = max(1, min(EACH, budget // (len(DEVICE_KINDS) * max(len(labels), 1))))
    wanted = labels[: max(1, budget // (len(DEVICE_KINDS) * each))]
    found: dict[str, dict[str, list[Example]]] = {label: {} for label in wanted}
    chosen = f"max_by(struct_pack(uri := {schema.URI}, score := score), {{by}}, {each})"
    rows = table.database.execute(
        f"""
        SELECT label, {chosen.format(by="score")}, {chosen.format(by=f"hash({schema.URI})")}
        FROM (SELECT {schema.URI}, unnest({schema.LABELS}) AS label, unnest({schema.SCORES}) AS score FROM {LABELS})
        WHERE list_contains($1, label) GROUP BY 1
        """,
        [wanted],
    ).fetchall()
    for label, surest, random in rows:
        found[label]["surest"] = [Example(**one) for one in surest]
        found[label]["random"] = [Example(**one) for one in random]
    nearest = table.database.execute(
        f"""
        WITH scored AS (
            SELECT {schema.URI}, {schema.RUN_ID}, unnest({schema.ALL_SCORES}) AS score,
                   generate_subscripts({schema.ALL_SCORES}, 1) - 1 AS class_id
            FROM {LABELS} WHERE {schema.ALL_SCORES} IS NOT NULL
        )
        SELECT label, min_by(struct_pack(uri := {schema.URI}, score := score, threshold := threshold), abs(score - threshold), {each})
        FROM scored JOIN {THRESHOLDS} USING ({schema.RUN_ID}, class_id)
        WHERE score IS NOT NULL AND list_contains($1, label) GROUP BY 1
        """,
        [wanted],
    ).fetchall()
    for label, examples in nearest:
        found[label]["nearest"] = [Example(**one) for one in examples]
    return [Sheet(label, {kind: kinds.get(kind, []) for kind in DEVICE_KINDS}) for label, kinds in found.items()]


def list_failed(table: LabelTable) -> list[Failed]:
    """Some rows that are not `ok`, of each status alike."""
    rows = table.database.execute(
        f"""
        SELECT {schema.URI}, {schema.STATUS}, {schema.ERROR_MESSAGE} FROM {LABELS} WHERE {schema.STATUS} <> 'ok'
        QUALIFY row_number() OVER (PARTITION BY {schema.STATUS} ORDER BY hash({schema.URI})) <= {ERRORS // 8}
        ORDER BY {schema.STATUS}, {schema.URI} LIMIT {ERRORS}
        """
    ).fetchall()
    return [Failed(*row) for row in rows]
