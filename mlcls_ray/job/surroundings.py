"""The surroundings that a Ray on this machine needs. They are checked before it starts: its own errors come late and name no variable."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from mlcls_ray.errors import UsageError
from mlcls_ray.models.cache import HOME_VARIABLE, home

TMPDIR_VARIABLES = ("RAY_TMPDIR", "TMPDIR")
"""The variables that Ray takes its temporary folder from, the first one first."""
SOCKET = "/ray/session_2026-01-01_00-00-00_000000_{pid}/sockets/plasma_store"
"""The longest path of a socket below that folder (Ray 2.60)."""
MAX_SOCKET_BYTES = {"darwin": 103}.get(sys.platform, 107)
MIN_FREE_BYTES = 50_000_000
"""Sockets, logs and the package take some megabytes."""
SHARED_MEMORY = "/dev/shm"  # noqa: S108
TOKEN_VARIABLES = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


UNQUOTED = "'\\\n\r"
"""Ray quotes its workers' command lines as Windows does, and reads them as a shell does."""


def check_surroundings(
    variables: Mapping[str, str] = os.environ,
    shared_memory: str | None = SHARED_MEMORY if sys.platform == "linux" else None,
) -> None:
    """Check what a Ray on this machine needs: a temporary folder, shared memory, a cache that can be written.

    Args:
        variables: the environment.
        shared_memory: the folder of the shared memory; None where the system has none.

    Raises:
        UsageError: names the variable or the folder, and the way out.
    """
    check_temporary_folder(variables)
    if shared_memory is not None and not can_write(shared_memory):
        state = "cannot be written" if os.path.isdir(shared_memory) else "is missing"
        raise UsageError(
            f"{shared_memory} {state}, and Ray's processes share images through it: mount a tmpfs there "
            "(docker run --shm-size=2g)"
        )
    cache = home()
    if not can_write(cache):
        raise UsageError(f"the cache {cache} cannot be written: set {HOME_VARIABLE} to a folder that can")


def check_temporary_folder(variables: Mapping[str, str]) -> None:
    """Check Ray's temporary folder: its sockets need a short path, and its logs need room.

    Raises:
        UsageError: names the variable and the way out.
    """
    variable = next((name for name in TMPDIR_VARIABLES if name in variables), None)
    folder = variables[variable] if variable else "/tmp"  # noqa: S108
    shown = f"{variable}={folder}" if variable else folder
    longest = len(os.fsencode(folder + SOCKET.format(pid=os.getpid())))
    if longest > MAX_SOCKET_BYTES:
        most = MAX_SOCKET_BYTES - (longest - len(os.fsencode(folder)))
        raise UsageError(
            f"{shown} is too long for Ray's sockets ({len(os.fsencode(folder))} bytes, at most {most}): "
            "set RAY_TMPDIR to a shorter folder, such as /tmp"
        )
    if any(character in UNQUOTED for character in folder):
        raise UsageError(
            f"{shown} has quotes, backslashes or line ends, which Ray's command lines cannot hold: set RAY_TMPDIR to another folder, "
            "such as /tmp"
        )
    if not can_write(folder):
        raise UsageError(
            f"{shown} cannot be written, and Ray keeps its sockets and logs there: set RAY_TMPDIR to a folder that can"
        )
    free = shutil.disk_usage(nearest(folder)).free
    if free < MIN_FREE_BYTES:
        raise UsageError(
            f"{shown} has {free / 1e6:.0f} MB left, and Ray's logs need {MIN_FREE_BYTES / 1e6:.0f}: free some, "
            "or set RAY_TMPDIR to a folder on another disk"
        )


def needs_own_token(variables: Mapping[str, str] = os.environ) -> bool:
    """Tell whether Ray could not keep its token: it would write one into the home folder, which cannot be written."""
    if variables.get("RAY_AUTH_MODE", "token") != "token" or any(variables.get(name) for name in TOKEN_VARIABLES):
        return False
    folder = variables.get("HOME")
    token = Path(folder or "/nonexistent", ".ray", "auth_token")
    return not (os.access(token, os.R_OK) or (folder and can_write(token.parent)))


def can_write(folder: str | Path) -> bool:
    """Tell whether a folder can be written, or made first. Tries it: permissions say nothing about file systems like /proc."""
    try:
        with tempfile.TemporaryFile(dir=nearest(folder)):
            return True
    except OSError:
        return False


def nearest(folder: str | Path) -> Path:
    """Return a path, or the nearest one above it that exists."""
    path = Path(folder).absolute()
    return next(parent for parent in (path, *path.parents) if parent.exists())
