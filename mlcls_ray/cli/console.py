"""The console that commands print tables and help with."""

from __future__ import annotations

import io

from rich.console import Console
from rich.table import Table

WIDE = 100_000
"""A width, in characters, that no table reaches."""


class Terminal(Console):
    """A console whose closed pipe ends the command as that of `print` does: quietly, with exit code 0. It takes text as it is."""

    def __init__(self, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False)

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def print_lines(console: Console, table: Table) -> None:
    """Print a table with each row in one line, however long, and without blanks at its end: for whatever reads or copies it."""
    text = io.StringIO()
    Console(file=text, width=WIDE, markup=False, emoji=False, highlight=False).print(table)
    for line in text.getvalue().splitlines():
        console.out(line.rstrip(), highlight=False)


def print_table(console: Console, table: Table) -> None:
    """Print a table: folded into the width of a terminal, elsewhere with each row in one line."""
    if console.is_terminal:
        console.print(table)
    else:
        print_lines(console, table)
