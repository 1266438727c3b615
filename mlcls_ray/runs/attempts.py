"""Attempts: each driver that works on a run is one. Its fragments carry its number, and it writes down which older fragments it
accepts before it starts, so that late workers of a dead driver cannot add rows behind its back."""

from __future__ import annotations

from typing import NamedTuple

import pyarrow as pa

from mlcls_ray.storage import layout
from mlcls_ray.storage.ledger import Fragment, RowSet, describe_fragment, fragment_names, read_rows
from mlcls_ray.storage.store import Store


class Attempt(NamedTuple):
    """`accepted`: fragments of earlier attempts; `done`: the rows in them."""

    number: int
    accepted: list[Fragment]
    done: RowSet


def start_attempt(store: Store, run_id: str, rows: int) -> Attempt:
    """Read the ledger and write down what is accepted: what the last attempt accepted, and its own fragments.

    A fragment of an older attempt that the last one did not accept came late, and its rows may have been labeled again since.
    """
    folder = layout.attempts_folder(run_id)
    last = max((int(name.partition(".")[0]) for name in store.names(folder)), default=0)
    told = store.read_json(_file(run_id, last)) or {"accepted": []}
    accepted_before = set(told["accepted"])
    acceptable = [
        name for name in fragment_names(store, run_id) if name in accepted_before or layout.attempt_of(name) == last
    ]
    accepted = []
    for name in acceptable:
        try:
            accepted.append(describe_fragment(store, run_id, name))
        except (FileNotFoundError, pa.ArrowInvalid):
            continue  # not a whole fragment: the commit removes it, its rows run again
    names = [fragment.name for fragment in accepted]
    done = read_rows(store, run_id, names, rows)
    store.write_json(_file(run_id, last + 1), {"attempt": last + 1, "accepted": names})
    return Attempt(last + 1, accepted, done)


def _file(run_id: str, number: int) -> str:
    return f"{layout.attempts_folder(run_id)}/{number:04d}.json"
