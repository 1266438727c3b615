"""The filters and the order of a page, written as SQL. Every value goes to DuckDB as a parameter, never as text of the query."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from mlcls_ray.errors import UsageError, suggest
from mlcls_ray.explore.browse.index import Index, Places
from mlcls_ray.explore.review import DISAGREES, LATER
from mlcls_ray.table.sql import quoted

Sort = Literal["name", "newest", "score", "low score", "unsure", "corrected", "alike"]
Reviewed = Literal["none", "any", "accepted", "changed", "unsure", "disagrees", "later"]
Number = Annotated[float, Field(ge=0.0, le=1.0)]
Name = Annotated[str, Field(max_length=2000)]
Names = Annotated[tuple[Name, ...], Field(max_length=200)]

LAST = 1e9
"""The key of images that have none: they come last."""
REVIEWED: Mapping[Reviewed, str] = {
    "none": "verdict IS NULL AND status = 'ok'",
    "any": "verdict IS NOT NULL",
    "accepted": f"verdict = 'labeled' AND NOT ({DISAGREES})",
    "changed": DISAGREES,
    "unsure": "verdict = 'unsure'",
    "disagrees": DISAGREES,
    "later": LATER,
}


class ScoreRange(BaseModel):
    """A class and the scores that it may have, both ends included."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: Name
    low: Number = 0.0
    high: Number = 1.0


class Filter(BaseModel):
    """The images that a page shows, and their order. Empty: all of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    any: Names = ()
    all: Names = ()
    none: Names = ()
    scores: Annotated[tuple[ScoreRange, ...], Field(max_length=20)] = ()
    status: Name | None = None
    run: Name | None = None
    text: Name = ""
    near: Number | None = None
    """Images with a score that is at most this far from its threshold: of `label`, or of any class."""
    label: Name | None = None
    """The class that `near`, and the sorts `score`, `low score` and `unsure`, are about. Without one: the labels of an image."""
    differ: tuple[Name, Name] | None = None
    """Two runs, or other outputs, that gave an image other labels."""
    reviewed: Reviewed | None = None
    alike: Annotated[int, Field(ge=0)] | None = None
    """Images that look like this one."""
    sort: Sort = "name"


class Where(NamedTuple):
    """A condition over the view `shown`, with its parameters, and the joins that it needs; `key` is what the images are sorted by."""

    joins: str
    condition: str
    key: str
    values: dict[str, Any]


def as_sql(chosen: Filter, index: Index, joined: Mapping[str, str]) -> Where:
    """Write a filter as SQL.

    Args:
        chosen: The filter.
        index: The index, which knows the classes of each run.
        joined: For `differ` and `alike`, the names of tables with the column `id` that were made for them.

    Raises:
        UsageError: a label that no run knows.
    """
    values: dict[str, Any] = {}
    conditions = [
        *_label_conditions(chosen, values),
        *_score_conditions(chosen, index, values),
        *_other_conditions(chosen, values),
    ]
    joins = " ".join(f"JOIN {table} USING (id)" for table in joined.values())
    return Where(joins, " AND ".join(f"({one})" for one in conditions) or "true", _key(chosen, index, values), values)


def _label_conditions(chosen: Filter, values: dict[str, Any]) -> list[str]:
    templates = {
        "any": "list_has_any(labels, $any::VARCHAR[])",
        "all": "list_has_all(labels, $all::VARCHAR[])",
        "none": "status = 'ok' AND NOT list_has_any(labels, $none::VARCHAR[])",
    }
    used = {name: list(getattr(chosen, name)) for name in templates if getattr(chosen, name)}
    values.update(used)
    return [templates[name] for name in used]


def _score_conditions(chosen: Filter, index: Index, values: dict[str, Any]) -> list[str]:
    conditions = []
    for place, one in enumerate(chosen.scores):
        score = score_of(index, one.label, values, f"score_{place}")
        values |= {f"low_{place}": one.low, f"high_{place}": one.high}
        conditions.append(f"{score} BETWEEN $low_{place}::FLOAT AND $high_{place}::FLOAT")
    if chosen.near is not None:
        values["near"] = chosen.near
        conditions.append(f"{_distance(chosen, index, values)} <= $near")
    return conditions


def _other_conditions(chosen: Filter, values: dict[str, Any]) -> list[str]:
    conditions = [REVIEWED[chosen.reviewed]] if chosen.reviewed else []
    if chosen.status is not None:
        values["status"] = chosen.status
        conditions.append("status <> 'ok'" if chosen.status == "not ok" else "status = $status")
        if chosen.status == "not ok":
            del values["status"]
    if chosen.run is not None:
        values["run"] = chosen.run
        conditions.append("run_id = $run")
    if chosen.text:
        values["text"] = chosen.text.lower()
        conditions.append("contains(lower(uri), $text)")
    return conditions


def _key(chosen: Filter, index: Index, values: dict[str, Any]) -> str:
    """Write what images are sorted by; equal ones are in the order of their ids."""
    best = "list_max(model_scores)"
    if chosen.label is not None and chosen.sort in ("score", "low score"):
        best = score_of(index, chosen.label, values, "key")
    keys = {
        "name": "uri",
        "newest": "-epoch_us(labeled_at)",
        "score": f"-{best}",
        "low score": best,
        "unsure": _distance(chosen, index, values) if chosen.sort == "unsure" else "0",
        "corrected": "-epoch_us(corrected_at)",
        "alike": "-cosine" if chosen.alike is not None else "0",
    }
    return "uri" if chosen.sort == "name" else f"coalesce({keys[chosen.sort]}, {LAST})"


def _distance(chosen: Filter, index: Index, values: dict[str, Any]) -> str:
    """Write how far the score of the class `label` is from its threshold; without one: the nearest of all classes."""
    if chosen.label is None:
        return "margin"
    score = score_of(index, chosen.label, values, "key")
    return f"abs({score} - {_by_run(index, chosen.label, _threshold)})"


def score_of(index: Index, label: str, values: dict[str, Any], name: str) -> str:
    """Write the score of a class as `mlcls relabel` takes it: exact where it is a label of the model, else at most the threshold.

    `name`: the parameter that holds the class, which is added to `values`.

    Raises:
        UsageError: no run has the class.
    """
    values[name] = label
    kept = _by_run(index, label, _kept_score)
    return f"coalesce(model_scores[nullif(list_position(model_labels, ${name}), 0)], {kept})"


def _kept_score(places: Places) -> str:
    """Write the score of a label that an image does not have: the greatest of its classes, each at most at its threshold."""
    scores = [f"if(all_scores[{place}] > {limit!r}, {limit!r}, all_scores[{place}])::FLOAT" for place, limit in places]
    return scores[0] if len(scores) == 1 else f"greatest({', '.join(scores)})"


def _threshold(places: Places) -> str:
    """Write the threshold of a label: the lowest of its classes."""
    return f"{min(limit for _, limit in places)!r}::FLOAT"


def _by_run(index: Index, label: str, expression: Callable[[Places], str]) -> str:
    """Write an expression of the places of a label's classes, which each run has for itself."""
    places = index.places_of(label)
    if not places:
        raise UsageError(f"no run knows the class '{label}'{suggest(label, index.labels)}")
    runs: dict[Places, list[str]] = {}
    for run_id, place in places.items():
        runs.setdefault(place, []).append(run_id)
    if len(runs) == 1 and len(places) == len(index.records) and index.has_all_records:
        return expression(next(iter(runs)))
    cases = " ".join(
        f"WHEN run_id IN ({', '.join(map(quoted, ids))}) THEN {expression(place)}" for place, ids in runs.items()
    )
    return f"CASE {cases} END"
