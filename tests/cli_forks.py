"""Run many commands of `mlcls` in one Python: `python cli_forks.py` reads JSON jobs, one a line, and prints each one's exit code.

A job is {"words": […], "stdout": "file" | "closed" | "none" | "full", "path": …, "stderr": …}: where its standard output goes, and the
file that its standard error is added to. Each runs in a forked child whose streams are really those: the modules are imported once.
"""

from __future__ import annotations

import io
import json
import os
import sys

import duckdb
import rich.console
import rich.table

import mlcls_ray.cli.inspect
import mlcls_ray.cli.maintain
import mlcls_ray.explore.diff
import mlcls_ray.table.label_table  # noqa: F401
from mlcls_ray.cli import main


def connect(where: str, path: str) -> None:
    """Connect the standard output of this process."""
    if where == "none":
        os.close(1)
        sys.stdout = None  # type: ignore[assignment]  # what Python does when it starts with a closed one
        return
    if where == "closed":
        reading, writing = os.pipe()
        os.close(reading)
    else:
        writing = os.open(path if where == "file" else "/dev/full", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(writing, 1)
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(io.FileIO(1, "w", closefd=False)), encoding="ascii" if where == "file" else "utf-8"
    )


def run(job: dict[str, str]) -> int:
    child = os.fork()
    if child == 0:
        code = 70
        try:
            os.dup2(os.open(job["stderr"], os.O_WRONLY | os.O_APPEND | os.O_CREAT), 2)
            connect(job["stdout"], job.get("path", ""))
            main(job["words"])  # type: ignore[arg-type]
            code = 0
        except SystemExit as done:
            code = done.code if isinstance(done.code, int) else 1
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    assert duckdb and rich.table
    for line in sys.stdin:
        codes = run(json.loads(line))
        print(codes, flush=True)
