"""How many rows a fragment gets. A module of its own because the tally, a process that must start fast, needs nothing else of `pools`."""

from __future__ import annotations

FIRST_FRAGMENT_ROWS, MAX_FRAGMENT_ROWS = 500, 100_000
"""Of a fragment while the rate is not known yet, and ever."""


def rows_per_fragment(rate: float | None, seconds: float) -> int:
    """So many rows that a fragment is `seconds` of the work of a worker that does `rate` a second."""
    return FIRST_FRAGMENT_ROWS if rate is None else min(max(round(rate * seconds), 1), MAX_FRAGMENT_ROWS)
