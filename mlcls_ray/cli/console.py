"""The console that commands print tables and help with."""

from __future__ import annotations

from rich.console import Console


class Terminal(Console):
    """A console whose closed pipe ends the command as that of `print` does: quietly, with exit code 0. It takes text as it is."""

    def __init__(self) -> None:
        super().__init__(markup=False, emoji=False, highlight=False)

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError
