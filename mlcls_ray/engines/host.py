"""The facts about this machine that decide what a job can do: its processor and its memory."""

from __future__ import annotations

import os
import platform
import shutil
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 – its size is read
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
CGROUP_USED = Path("/sys/fs/cgroup/memory.current")


class Host(BaseModel):
    """A machine, or what a container shows of it. None: the system does not say."""

    model_config = ConfigDict(frozen=True)

    processor: str
    architecture: str
    cores: int
    features: frozenset[str] = frozenset()
    """Instruction sets, as the kernel names them."""
    total_bytes: int | None = None
    available_bytes: int | None = None
    shared_bytes: int | None = None
    """Size of the file system that Ray keeps its objects in."""


def read_host() -> Host:
    """Read the facts from the kernel."""
    processor = _table(Path("/proc/cpuinfo"))
    features = processor.get("flags", processor.get("Features", ""))
    memory = {name: int(value.split()[0]) << 10 for name, value in _table(Path("/proc/meminfo")).items()}
    total, available = memory.get("MemTotal"), memory.get("MemAvailable")
    limit, used = _number(CGROUP_LIMIT), _number(CGROUP_USED)
    if limit is not None and total is not None and available is not None:  # a container's share
        total, available = min(total, limit), max(0, min(available, limit - (used or 0)))
    shared = None
    with suppress(OSError):
        shared = shutil.disk_usage(SHARED_MEMORY).total
    return Host(
        processor=processor.get("model name", platform.processor() or platform.machine()),
        architecture=platform.machine(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        features=frozenset(features.split()),
        total_bytes=total,
        available_bytes=available,
        shared_bytes=shared,
    )


def _table(path: Path) -> dict[str, str]:
    """Read lines `name: value`; of several lines with one name the first. Nothing where there is no such file."""
    table: dict[str, str] = {}
    with suppress(OSError):
        for line in path.read_text().splitlines():
            name, _, value = line.partition(":")
            table.setdefault(name.strip(), value.strip())
    return table


def _number(path: Path) -> int | None:
    """Read one number; None where there is none, or `max`."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
