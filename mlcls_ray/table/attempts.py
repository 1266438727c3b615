"""Attempts: each driver that works on a run is one, and each wave of one driver. Its fragments carry its number, and it writes down which
older fragments it accepts before it starts, so that late workers of a dead driver cannot add rows behind its back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa

from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout
from mlcls_ray.table.ledger import Fragment, RowSet, describe_fragment, fragment_names, read_rows


class Attempt(NamedTuple):
    """`accepted`: fragments of earlier attempts; `done`: the rows in them."""

    number: int
    accepted: list[Fragment]
    done: RowSet


def start_attempt(store: Store, run_id: str, rows: int) -> Attempt:
    """Read the ledger and write down what is accepted. See `start_attempts`."""
    (attempt,) = start_attempts([store], run_id, rows)
    return attempt


def start_attempts(stores: Sequence[Store], run_id: str, rows: int) -> list[Attempt]:
    """An attempt at the same run in each store: several models' in one pass over the images, mostly one model's.

    Accepted is what is there in all of them: a driver that died between two models' fragments of a task has its rows run again in both.
    """
    found = [_acceptable(store, run_id) for store in stores]
    number = 1 + max(last for last, _ in found)
    everywhere = set.intersection(*({fragment.name for fragment in fragments} for _, fragments in found))
    return [
        _begin(store, run_id, rows, number, [one for one in fragments if one.name in everywhere])
        for store, (_, fragments) in zip(stores, found, strict=True)
    ]


def _acceptable(store: Store, run_id: str) -> tuple[int, list[Fragment]]:
    """The last attempt's number, and what it accepted with its own fragments.

    A fragment of an older attempt that the last one did not accept came late, and its rows may have been labeled again since.
    Only the last attempt's fragments are read whole; what was accepted before is described in its file.
    """
    folder = layout.attempts_folder(run_id)
    last = max((int(name.partition(".")[0]) for name in store.names(folder)), default=0)
    told = store.read_json(_file(run_id, last)) or {"accepted": []}
    described = {one["name"]: Fragment.model_validate(one) for one in told["accepted"]}
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


def _begin(store: Store, run_id: str, rows: int, number: int, accepted: list[Fragment]) -> Attempt:
    done = read_rows(store, run_id, [fragment.name for fragment in accepted], rows)
    told = [fragment.model_dump() for fragment in accepted]
    store.write_json(_file(run_id, number), {"attempt": number, "accepted": told})
    return Attempt(number, accepted, done)


def _file(run_id: str, number: int) -> str:
    return f"{layout.attempts_folder(run_id)}/{number:04d}.json"
