"""The JSON that goes to the page and comes from it. Text of strangers has no control characters, and URLs have no secrets."""

from __future__ import annotations

from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field

from mlcls_ray.errors import UsageError
from mlcls_ray.explore.browse.corrector import Operation
from mlcls_ray.explore.browse.filters import Filter, Number
from mlcls_ray.explore.browse.queries import MAX_IDS
from mlcls_ray.explore.browse.session import Session, View
from mlcls_ray.labels.thresholds import FILE_VERSION, VERSION, Thresholds
from mlcls_ray.storage.uris import redact_url
from mlcls_ray.table.records import in_order
from mlcls_ray.table.thumbnails import base_name
from mlcls_ray.terminal import plain


class Request(BaseModel):
    """A body of the page. `version`: that of the view whose image numbers it uses."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str


class CorrectRequest(Request):
    """Do something to some images, or to all of a filter."""

    operation: Operation
    ids: Annotated[tuple[int, ...], Field(max_length=MAX_IDS)] | None = None
    filter: Filter | None = None


class UndoRequest(Request):
    """Take back an action; without an id the last one of this person."""

    correction_id: str | None = None


class ThresholdsRequest(Request):
    """Keep the thresholds of some classes."""

    classes: dict[str, Number]
    save: bool = False


def item(row: dict[str, Any]) -> dict[str, Any]:
    """Make what the grid shows of an image."""
    scores = dict(zip(row["model_labels"] or [], row["model_scores"] or [], strict=True))
    return {
        "id": row["id"],
        "name": plain(base_name(row["uri"])),
        "uri": plain(redact_url(row["uri"])),
        "status": row["status"],
        "problem": plain(row["error_message"] or "") if row["status"] != "ok" else "",
        "labels": [
            {"name": label, "score": scores.get(label)}
            for label in sorted(row["labels"] or [], key=lambda label: -scores.get(label, 0.0))
        ],
        "model_labels": row["model_labels"] or [],
        "verdict": row["verdict"],
        "by": plain(row["corrected_by"] or ""),
        "is_later": row["verdict"] == "labeled" and row["run_id"] != row["corrected_run"],
        "run": row["run_id"],
    }


def whole(row: dict[str, Any]) -> dict[str, Any]:
    """Make what the large view shows of an image."""
    facts = {name: row[name] for name in ("width", "height", "format", "has_embedding", "classes")}
    return {**item(row), **facts, "labeled_at": f"{row['labeled_at']:%Y-%m-%d %H:%M} UTC"}


def facts(session: Session, view: View) -> dict[str, Any]:
    """Make what the page knows from its start."""
    table = view.index.table
    runs = [success.run_id for success in reversed(in_order(table.successes, table.records))]
    models = {run_id: record.model for run_id, record in table.records.items()}
    return {
        "version": view.version,
        "out": plain(redact_url(session.subject.out)),
        "images": view.index.rows,
        "labels": view.index.labels,
        "runs": [{"id": run_id, "model": plain(models.get(run_id, ""))} for run_id in runs],
        "others": list(view.index.others),
        "read_only": session.subject.is_read_only,
        "user": plain(session.subject.corrected_by),
        "alike": view.index.has_embeddings,
    }


def thresholds_file(view: View, classes: dict[str, float]) -> str:
    """Write a thresholds file, as `mlcls relabel --threshold` takes it. That of a label is that of all classes that give it.

    Raises:
        UsageError: a class that the newest run does not know.
    """
    newest = view.index.table.newest
    names = newest.resolved_map
    Thresholds(classes=classes).resolve(names.labels, [0.0] * len(names.labels))
    if not classes:
        raise UsageError("no threshold was changed")
    changed = {name: classes[label] for name, label in names.by_class if label in classes}
    content = {
        VERSION: FILE_VERSION,
        "model": newest.model,
        "model_fingerprint": newest.model_fingerprint,
        "classes": changed,
    }
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
