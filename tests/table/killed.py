"""Run a command of upkeep again and again, each time killed at another operation on files: `python killed.py COMMAND TEMPLATE FOLDER STEP`.

The output TEMPLATE is copied to FOLDER/N, and a child process that works on the copy is killed right before its Nth change of a file or
folder (Python's audit events name them), for each STEPth N. Prints how many there are; the last child lives to the end.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from datetime import timedelta

from mlcls_ray.labels.thresholds import Thresholds
from mlcls_ray.storage.store import Store
from mlcls_ray.table.compact import compact
from mlcls_ray.table.gc import find_leftovers, remove_leftovers
from mlcls_ray.table.prune import find_superseded, remove_runs
from mlcls_ray.table.relabel import relabel

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "shutil.move"}
COMMANDS: dict[str, Callable[[Store], object]] = {
    "compact": lambda store: compact(store, "one"),
    "prune": lambda store: remove_runs(store, find_superseded(store, timedelta(0))),
    "gc": lambda store: remove_leftovers(store, find_leftovers(store, 0)),
    "relabel": lambda store: relabel(store, Thresholds(default=0.3), run_id="new"),
}


def is_change(event: str, arguments: tuple[object, ...], root: str) -> bool:
    """Whether an audit event changes something in a folder."""
    if event == "open":
        path, _, flags = arguments
        return isinstance(path, str) and path.startswith(root) and bool(int(str(flags)) & (os.O_WRONLY | os.O_RDWR))
    if event not in CHANGES:
        return False
    is_relative = not os.path.isabs(str(arguments[0]))  # to a folder that is open: `rmtree` removes so
    return is_relative or str(arguments[0]).startswith(root)


def work(command: str, out: str, kill_at: int) -> None:
    """In the child: do it, and die before the change `kill_at`."""
    count = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        if is_change(event, arguments, out):
            if count == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            count += 1

    sys.addaudithook(hook)
    COMMANDS[command](Store(out))


def main(command: str, template: str, folder: str, step: int) -> None:
    number = 0
    while True:
        out = os.path.join(folder, str(number))
        shutil.copytree(template, out)
        child = os.fork()
        if child == 0:
            try:
                work(command, out, number)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            print(number)
            sys.exit(os.waitstatus_to_exitcode(status))
        number += step


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
