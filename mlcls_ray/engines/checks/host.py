"""Checks of the machine itself: processor, memory, packages, and the model cache."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from mlcls_ray.engines.checks.check import Check, Outcome
from mlcls_ray.engines.host import SHARED_MEMORY, Host
from mlcls_ray.engines.nvidia import GIB
from mlcls_ray.models.cache import HOME_VARIABLE

FEATURES = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_vnni": "VNNI",
    "avx512_bf16": "AVX512_BF16",
    "amx_bf16": "AMX",
    "asimd": "NEON",
    "sve": "SVE",
    "bf16": "BF16",
}
"""Instruction sets that decide the speed of a network, by the kernel's name."""
FAST_BF16 = ("avx512_bf16", "amx_bf16", "bf16")
NEEDED_MEMORY = GIB
NEEDED_SHARED = GIB
NEEDED_DISK = GIB


def check_processor(host: Host) -> Check:
    """Check that Paddle's build for x86-64 runs: it is compiled for AVX."""
    known = [text for name, text in FEATURES.items() if name in host.features]
    message = f"{host.processor}, {host.cores} core(s){': ' + ', '.join(known) if known else ''}"
    if host.architecture == "x86_64" and host.features and "avx" not in host.features:
        message = f"{host.processor} has no AVX, for which Paddle and OpenVINO are built"
        return Check(name="processor", state="broken", message=message, way_out="use another machine")
    if any(name in host.features for name in FAST_BF16):
        message += "; bf16 is fast here"
    return Check(name="processor", state="ok", message=message)


def check_memory(host: Host) -> Check:
    if host.total_bytes is None or host.available_bytes is None:
        return Check(name="memory", state="ok", message="the system does not say", is_required=False)
    message = f"{host.available_bytes / GIB:.1f} of {host.total_bytes / GIB:.1f} GiB free"
    if host.available_bytes < NEEDED_MEMORY:
        way_out = f"end other programs, or give the container more: {NEEDED_MEMORY / GIB:.0f} GiB is the least"
        return Check(name="memory", state="broken", message=message, way_out=way_out)
    return Check(name="memory", state="ok", message=message)


def check_shared_memory(host: Host) -> Check:
    """Check the place that Ray keeps its objects in; without it Ray uses the disk."""
    if host.shared_bytes is None:
        return Check(name="shared memory", state="ok", message=f"no {SHARED_MEMORY}: Ray uses /tmp", is_required=False)
    message = f"{SHARED_MEMORY}, {host.shared_bytes / GIB:.1f} GiB"
    if host.shared_bytes < NEEDED_SHARED:
        message += ": too small, so Ray uses /tmp, which is slower"
        way_out = "docker run --shm-size=4g; in Kubernetes an emptyDir with medium: Memory"
        return Check(name="shared memory", state="broken", message=message, way_out=way_out, is_required=False)
    return Check(name="shared memory", state="ok", message=message, is_required=False)


def check_packages(
    name: str, packages: Sequence[str], version: Callable[[str], str], outcome: Callable[[], Outcome], install: str
) -> Check:
    """Check that a library is installed and loads.

    Args:
        packages: those that bring it, any of them.
        outcome: imports it, or uses it, in another process; called if it is installed.
        install: the command that brings it.
    """
    installed = [f"{package} {version(package)}" for package in packages if version(package)]
    if not installed:
        return Check(name=name, state="missing", message=f"{packages[0]} is not installed", way_out=install)
    done = outcome()
    if done.code != 0:
        message = f"{', '.join(installed)} does not load: {done.reason[-200:]}"
        package = installed[0].partition(" ")[0]
        lacks_another = "No module named" in done.reason
        way_out = install if lacks_another else f"pip install --force-reinstall --no-deps {package}"
        return Check(name=name, state="broken", message=message, way_out=way_out)
    return Check(name=name, state="ok", message=", ".join(installed))


def check_version(check: Check, package: str, version: Callable[[str], str], series: str) -> Check:
    """Refuse another version of a package that loads: `series` is what the version must begin with."""
    if check.state != "ok" or version(package).startswith(series):
        return check
    message = f"{package} {version(package)} is installed; {series}* is needed, whose inner interfaces are used"
    return check.model_copy(
        update={"state": "broken", "message": message, "way_out": f"pip install '{package}=={series}*'"}
    )


def check_cache(folder: Path) -> Check:
    """Check that the model cache can be written, and has room. `folder`: `models.cache.home()`."""
    name = "model cache"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        message = f"{folder} cannot be written ({error.strerror})"
        return Check(name=name, state="broken", message=message, way_out=f"export {HOME_VARIABLE}=FOLDER")
    free = shutil.disk_usage(folder).free
    models, graphs = _names(folder / "models"), _names(folder / "converted")
    message = f"{folder}: {len(models)} fetched model(s), {len(graphs)} converted, {free / GIB:.1f} GiB free"
    if free < NEEDED_DISK:
        way_out = f"free some space, or export {HOME_VARIABLE}=FOLDER"
        return Check(name=name, state="broken", message=message, way_out=way_out)
    return Check(name=name, state="ok", message=message)


def _names(folder: Path) -> list[str]:
    """List what a folder of the cache holds, but for locks and what is still being written."""
    return [name for name in os.listdir(folder) if not name.startswith(".")] if folder.is_dir() else []
