"""Attempts: an attempt is one pass over the rows of a run that are left. A driver starts one when it starts or resumes a run, and
after it has lost a node. The attempt's number is a fencing token: it is part of every fragment's name.

Before an attempt starts it records which existing fragments it accepts. Whatever an older attempt writes after that is ignored, and
removed at the commit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa

from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout
from mlcls_ray.table.ledger import Fragment, RowSet, describe_fragment, fragment_names, read_rows


class Attempt(NamedTuple):
    """A new attempt at a run."""

    number: int
    accepted: tuple[list[Fragment], ...]
    """Fragments of earlier attempts, for each output of the run."""
    done: RowSet
    """The rows in them."""


def start_attempt(stores: Sequence[Store], run_id: str, rows: int) -> Attempt:
    """Read the ledger, and record what is accepted. `stores`: the outputs of the run, one for each model.

    A fragment is accepted if it is in every output. If a driver died after it had written one to some outputs only, its rows are labeled
    again for all.
    """
    acceptable = [_acceptable(store, run_id) for store in stores]
    number = 1 + max(last for last, _ in acceptable)
    in_all = set.intersection(*({fragment.name for fragment in fragments} for _, fragments in acceptable))
    accepted = tuple([fragment for fragment in fragments if fragment.name in in_all] for _, fragments in acceptable)
    done = read_rows(stores[0], run_id, [fragment.name for fragment in accepted[0]], rows)
    for store, fragments in zip(stores, accepted, strict=True):
        described = [fragment.model_dump() for fragment in fragments]
        store.write_json(_file(run_id, number), {"attempt": number, "accepted": described})
    return Attempt(number, accepted, done)


def accepted_fragments(store: Store, run_id: str) -> list[Fragment]:
    """Read which fragments of earlier attempts the newest attempt has accepted. Of a run without attempts: none."""
    recorded = store.read_json(_file(run_id, _last_attempt(store, run_id))) or {"accepted": []}
    return [Fragment.model_validate(fragment) for fragment in recorded["accepted"]]


def _last_attempt(store: Store, run_id: str) -> int:
    return max((int(name.partition(".")[0]) for name in store.names(layout.attempts_folder(run_id))), default=0)


def _acceptable(store: Store, run_id: str) -> tuple[int, list[Fragment]]:
    """Return the number of the last attempt, and its own fragments with those that it accepted.

    A fragment of an older attempt that the last one did not accept came late: its rows may have been labeled again since.
    Only the last attempt's fragments are read whole; what was accepted before is described in its file.
    """
    last = _last_attempt(store, run_id)
    described = {fragment.name: fragment for fragment in accepted_fragments(store, run_id)}
    accepted = []
    for name in fragment_names(store, run_id):
        if name in described:
            accepted.append(described[name])
        elif layout.attempt_of(name) == last:
            try:
                accepted.append(describe_fragment(store, run_id, name))
            except (FileNotFoundError, pa.ArrowInvalid):
                continue  # not a whole fragment: the commit removes it, its rows run again
    return last, accepted


def _file(run_id: str, number: int) -> str:
    return f"{layout.attempts_folder(run_id)}/{number:04d}.json"
