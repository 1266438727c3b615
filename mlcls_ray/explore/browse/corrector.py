"""The things that people do to labels: accept, add, remove, unsure, and undo, for one image or for many; each is kept at once.

A browser sends what to do, not the labels that it shows, and it is done to the labels as they are now: two tabs that add two labels to one
image get both. What other processes have written is read before each action and every few seconds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mlcls_ray.errors import UsageError, suggest
from mlcls_ray.explore.browse.index import Index, add_corrections, take_new_corrections
from mlcls_ray.table.corrections import Change, Verdict, as_rows, new_action, write_action

LOOK_S = 2.0
"""Seconds between two looks at what other processes have written."""
IMAGES = "SELECT id, uri, content_hash, run_id, labels, model_labels FROM shown WHERE status = 'ok'"
CHOSEN = f"{IMAGES} AND id IN (SELECT unnest($ids::INTEGER[])) ORDER BY id"
IMAGES_OF_ACTION = f"{IMAGES} AND uri IN (SELECT uri FROM corrections WHERE correction_id = $action) ORDER BY id"
ROWS_OF_ACTION = "SELECT uri, before, after FROM corrections WHERE correction_id = $action"
HISTORY = """
    SELECT uri, correction_id, undoes, verdict FROM corrections
    WHERE uri IN (SELECT uri FROM corrections WHERE correction_id = $action)
    ORDER BY number, corrected_at, correction_id
"""
LAST_ACTION = """
    SELECT correction_id FROM corrections
    WHERE corrected_by = $by AND undoes IS NULL AND correction_id NOT IN (SELECT undoes FROM corrections WHERE undoes IS NOT NULL)
    ORDER BY number DESC, corrected_at DESC, correction_id DESC LIMIT 1
"""


class Operation(BaseModel):
    """A thing to do to images. `add` and `remove` need a label."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["accept", "add", "remove", "unsure"]
    label: Annotated[str, Field(max_length=2000)] | None = None

    @model_validator(mode="after")
    def _check_label(self) -> Operation:
        if (self.label is None) != (self.kind in ("accept", "unsure")):
            raise ValueError("add and remove need a label, and the others none")
        return self


class Done(NamedTuple):
    """An action that was saved: its id, and the images that it changed."""

    correction_id: str
    ids: list[int]


class Corrector:
    """Applies what people do to the index and to OUT/corrections. Its methods may be called from several threads."""

    def __init__(
        self, index: Index, corrected_by: str, is_read_only: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.index = index
        self.corrected_by = corrected_by
        self.is_read_only = is_read_only
        self.changed: list[int] = []
        """The images that were changed since the start, in this order, by whomever."""
        self._lock = threading.Lock()
        self._clock = clock
        self._looked_at = clock()

    def apply(self, ids: Sequence[int], operation: Operation) -> Done:
        """Do something to images, and keep it. Images that are not labeled are left out.

        Raises:
            UsageError: this browser is read-only, no image is labeled, no run knows the label, or the output cannot be written.
        """
        if operation.label is not None and operation.kind == "add" and operation.label not in self.index.labels:
            raise UsageError(
                f"the vocabulary lacks the label '{operation.label}'{suggest(operation.label, self.index.labels)}"
            )
        with self._lock:
            self._look()
            images = self.index.query(CHOSEN, {"ids": list(ids)})
            return self._save([_change(image, operation) for image in images], None)

    def undo(self, correction_id: str | None = None) -> Done:
        """Take an action back: by default the last one of this person. What others changed since stays.

        Raises:
            UsageError: there is nothing to undo, or the output cannot be written.
        """
        with self._lock:
            self._look()
            action = correction_id or self.last_action()
            rows = self.index.query(ROWS_OF_ACTION, {"action": action}) if action else []
            if not rows or self._is_undone(str(action)):
                raise UsageError("there is nothing to undo")
            return self._save(self._undone(str(action), rows), action)

    def last_action(self) -> str | None:
        """Return the id of the last action of this person that was not undone."""
        rows = self.index.query(LAST_ACTION, {"by": self.corrected_by})
        return rows[0]["correction_id"] if rows else None

    def changed_since(self, place: int) -> tuple[int, list[int]]:
        """Return how many changes there were since the start, and the images of those after the first `place`."""
        if self._clock() - self._looked_at > LOOK_S:
            with self._lock:
                self._look()
        return len(self.changed), list(dict.fromkeys(self.changed[place:]))

    def _look(self) -> None:
        """Take in what other processes have written."""
        self.changed += take_new_corrections(self.index)
        self._looked_at = self._clock()

    def _save(self, changes: list[Change], undoes: str | None) -> Done:
        if self.is_read_only:
            raise UsageError("this browser is read-only: start it without --read-only to correct labels")
        if not changes:
            raise UsageError("none of the images is labeled: only labels can be corrected")
        (last,) = self.index.query("SELECT coalesce(max(number), 0) AS number FROM corrections", {})
        action = new_action(last["number"] + 1, self.corrected_by, undoes)
        rows = as_rows(action, changes)
        name = write_action(self.index.table.store, action, rows)
        ids = add_corrections(self.index, rows)
        self.index.files.add(name)
        self.changed += ids
        return Done(action.correction_id, ids)

    def _is_undone(self, action: str) -> bool:
        return bool(self.index.query("SELECT 1 FROM corrections WHERE undoes = $action LIMIT 1", {"action": action}))

    def _undone(self, action: str, rows: list[dict[str, Any]]) -> list[Change]:
        """Take back what an action added and removed, from the labels as they are now."""
        history: dict[str, list[dict[str, Any]]] = {}
        for row in self.index.query(HISTORY, {"action": action}):
            history.setdefault(row["uri"], []).append(row)
        by_uri = {row["uri"]: row for row in rows}
        images = self.index.query(IMAGES_OF_ACTION, {"action": action})
        changes = []
        for image in images:
            row = by_uri[image["uri"]]
            verdict = _verdict_without(history[image["uri"]], action)
            added, removed = set(row["after"]) - set(row["before"]), set(row["before"]) - set(row["after"])
            after = [label for label in image["labels"] if label not in added]
            after += [label for label in row["before"] if label in removed and label not in after]
            changes.append(_changed(image, verdict, image["model_labels"] if verdict == Verdict.WITHDRAWN else after))
        return changes


def _change(image: dict[str, Any], operation: Operation) -> Change:
    labels = list(image["labels"])
    if operation.kind == "add" and operation.label not in labels:
        labels.append(str(operation.label))
    elif operation.kind == "remove" and operation.label in labels:
        labels.remove(operation.label)
    return _changed(image, Verdict.UNSURE if operation.kind == "unsure" else Verdict.LABELED, labels)


def _changed(image: dict[str, Any], verdict: Verdict, after: Sequence[str]) -> Change:
    return Change(image["uri"], image["content_hash"], image["run_id"], verdict, image["labels"], after)


def _verdict_without(history: list[dict[str, Any]], action: str) -> Verdict:
    """Return the verdict of an image's last action that was not undone, without `action`."""
    undone = {action, *(row["undoes"] for row in history if row["undoes"])}
    left = [row for row in history if row["undoes"] is None and row["correction_id"] not in undone]
    return Verdict(left[-1]["verdict"]) if left else Verdict.WITHDRAWN
