"""`mlcls doctor`: what this machine can do, what it lacks, and what brings it. Some seconds; nothing is labeled, Ray is not started."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from mlcls_ray import __version__
from mlcls_ray.devices import Device
from mlcls_ray.engines.checks import host as checks
from mlcls_ray.engines.checks.check import Check, Outcome, Probes
from mlcls_ray.engines.checks.nvidia import decoder_check
from mlcls_ray.engines.devices import device_checks
from mlcls_ray.engines.host import Host, read_host
from mlcls_ray.engines.load import engine_spec
from mlcls_ray.models.cache import home
from mlcls_ray.terminal import suppress_native_output

RAY = "2.60."
"""The series of Ray that this version runs on; pyproject.toml pins it."""
BASE = "pip install mlcls-ray"
CPU_EXTRA = "pip install 'mlcls-ray[cpu]'"
CONVERTERS = ("onnx", "onnx_graphsurgeon", "polygraphy")
"""Modules that a conversion loads, beside paddle2onnx, which loads Paddle for the second time."""
PROBES_AT_ONCE = 4


class Report(BaseModel):
    """The state of a machine, for one device."""

    model_config = ConfigDict(frozen=True)

    version: str
    """The version of mlcls-ray."""
    device: str
    can_label: bool
    """Nothing that labeling on the device needs is missing or broken."""
    checks: tuple[Check, ...]


def examine(
    device: Device, probes: Probes | None = None, host: Host | None = None, cache: Path | None = None
) -> Report:
    """Make all checks of this machine for a device. Libraries are tried in other processes, some at a time.

    Args:
        probes, host, cache: what is looked at; default: this machine, and its model cache.
    """
    probes, host = probes or Probes(), host or read_host()
    steps: Sequence[Callable[[], Sequence[Check]]] = (
        lambda: [checks.check_processor(host), checks.check_memory(host), checks.check_shared_memory(host)],
        lambda: [_ray(probes)],
        lambda: [_decoding(probes)],
        lambda: [_paddle(device, probes)],
        lambda: [_openvino(probes)],
        lambda: [_onnxruntime(probes)] if device.kind != "gpu" else [],
        lambda: [_converters(probes)],
        lambda: list(_devices(device, probes)),
        lambda: [checks.check_cache(cache or home())],
    )
    with ThreadPoolExecutor(PROBES_AT_ONCE) as pool:
        made = tuple(check for part in pool.map(lambda step: step(), steps) for check in part)
    can_label = all(check.state == "ok" for check in made if check.is_required)
    return Report(version=__version__, device=str(device), can_label=can_label, checks=made)


def _devices(device: Device, probes: Probes) -> Iterator[Check]:
    """Check the device; for a CPU, the NVIDIA cards that the job could have used instead."""
    is_nvidia = device.kind in ("cpu", "gpu")
    examined = Device("gpu") if device.is_cpu else device
    with contextlib.nullcontext() if is_nvidia else suppress_native_output():  # Paddle prints when it is loaded
        found = list(device_checks(examined, "auto", probes))
    yield from (check.optional() if device.is_cpu else check for check in found)
    if is_nvidia and all(check.state == "ok" for check in found):
        yield decoder_check(Device("gpu", device.indices), probes)


def _ray(probes: Probes) -> Check:
    check = _load("Ray", ("ray",), ("ray", "ray.data"), BASE, probes)
    return checks.check_version(check, "ray", probes.version, RAY)


def _decoding(probes: Probes) -> Check:
    """Check the libraries that decode on the CPU."""
    modules = ("simplejpeg", "PIL.Image", "cv2")
    check = _load("decoders", ("simplejpeg",), modules, BASE, probes)
    if check.state != "ok":
        return check
    others = ", ".join(f"{name} {probes.version(name)}" for name in ("pillow", "opencv-python-headless"))
    return check.model_copy(update={"message": f"{check.message}, {others}"})


def _paddle(device: Device, probes: Probes) -> Check:
    check = _load("engine paddle", engine_spec("paddle").packages, ("paddle",), BASE, probes)
    # On an NVIDIA card ONNX Runtime scores, and Paddle is needed only to convert models that the cache does not have.
    return check.optional() if device.kind == "gpu" else check


def _openvino(probes: Probes) -> Check:
    packages = engine_spec("openvino").packages
    return _load("engine openvino", packages, ("openvino",), BASE, probes).optional()


def _onnxruntime(probes: Probes) -> Check:
    def run() -> Outcome:
        return probes.run(["session", "CPUExecutionProvider", "0"], probes.environ)

    packages = engine_spec("onnxruntime").packages
    return checks.check_packages("engine onnxruntime", packages, probes.version, run, CPU_EXTRA).optional()


def _converters(probes: Probes) -> Check:
    """Check what makes of a Paddle model what the other engines read."""
    return _load("conversion", ("paddle2onnx",), CONVERTERS, BASE, probes).optional()


def _load(name: str, packages: Sequence[str], modules: Sequence[str], install: str, probes: Probes) -> Check:
    return checks.check_packages(
        name, packages, probes.version, lambda: probes.run(["import", *modules], probes.environ), install
    )
