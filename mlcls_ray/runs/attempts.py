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
    """Read the ledger and write down what is accepted."""
    folder = layout.attempts_folder(run_id)
    number = 1 + max((int(name.partition(".")[0]) for name in store.names(folder)), default=0)
    accepted = []
    for name in fragment_names(store, run_id):
        try:
            accepted.append(describe_fragment(store, run_id, name))
        except (FileNotFoundError, pa.ArrowInvalid):
            continue  # not a whole fragment: the commit removes it, its rows run again
    done = read_rows(store, run_id, [fragment.name for fragment in accepted], rows)
    names = [fragment.name for fragment in accepted]
    store.write_json(f"{folder}/{number:04d}.json", {"attempt": number, "accepted": names})
    return Attempt(number, accepted, done)
