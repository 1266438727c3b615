"""The Ray cluster: connect to one, or start one on this machine."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
from typing import Any, NamedTuple

from mlcls_ray.config import EngineOrAuto
from mlcls_ray.devices import DEVICE_KINDS, Device
from mlcls_ray.engines.devices import check_device, count_devices
from mlcls_ray.errors import UsageError, short_message
from mlcls_ray.terminal import suppress_native_output

QUIET = {
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}
LOOPBACK_ONLY = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Ray resolves 127.0.0.1 to the machine's public address, and then listens everywhere, unless this variable says that there will be
no cluster. Its name is history."""
CONNECT_TIMEOUT_S = 10.0


class Node(NamedTuple):
    """A living node: its CPUs, and all its resources by Ray's names."""

    cpus: int
    resources: dict[str, float]


def connect(address: str | None, verbose: bool = False, device: Device | None = None) -> None:
    """Connect to `address`, or RAY_ADDRESS, or the cluster that this process is part of; else start Ray here.

    A Ray started here listens on 127.0.0.1 only, without a dashboard. Its workers inherit this process's environment, and see
    the devices that `device` names. On a cluster Ray picks the devices, of those that its nodes were started with.

    Raises:
        UsageError: the cluster cannot be reached; or Ray is to be started here, and the device is not there.
    """
    target = address or os.environ.get("RAY_ADDRESS")
    for name, value in {**({} if target else LOOPBACK_ONLY), **({} if verbose else QUIET)}.items():
        os.environ.setdefault(name, value)
    import ray  # it reads the environment above when it is imported

    if not ray.is_initialized():
        options: dict[str, Any] = {"address": target} if target else {"address": "local", "include_dashboard": False}
        if not target and device is not None:
            options |= _visible_devices(device)
        if not verbose:
            options |= {"log_to_driver": False, "logging_level": logging.ERROR}
        if target:
            _check_reachable(target)
        # Only where Ray is ours: a foreign cluster may end this process, and then says why on stderr only.
        with contextlib.nullcontext() if verbose or target else suppress_native_output():
            try:
                ray.init(**options)
            except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
                if not target:
                    raise
                raise UsageError(
                    f"the Ray cluster at '{target}' cannot be reached: {short_message(error)}. "
                    "Is the address right, and RAY_AUTH_TOKEN set?"
                ) from None
    _configure_data(verbose)


def _visible_devices(device: Device) -> dict[str, Any]:
    """Tell a Ray that is started here of this machine's devices; nothing where Ray finds them itself."""
    kind = DEVICE_KINDS[device.kind]
    if kind.ray_managed:
        if device.indices:
            seen = [name for name in os.environ.get(kind.visible_devices, "").split(",") if name]
            if seen and max(device.indices) >= len(seen):
                raise UsageError(
                    f"device '{device}': {kind.visible_devices}={','.join(seen)} shows {len(seen)} device(s)"
                )
            os.environ[kind.visible_devices] = ",".join(seen[index] if seen else str(index) for index in device.indices)
        return {}
    check_device(device)
    return {"resources": {kind.resource: float(len(device.indices) or count_devices(device))}}


def _check_reachable(address: str) -> None:
    """Try the port first: where nothing answers, Ray's C++ side ends the process after half a minute without an exception."""
    host, separator, port = address.rpartition("://")[2].rpartition(":")
    if not separator or not port.isdecimal():
        return  # "auto" and the like: Ray finds it by itself
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise UsageError(f"the Ray cluster at '{address}' cannot be reached: {error}") from None


def _configure_data(verbose: bool) -> None:
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = verbose
    context.print_on_execution_start = verbose
    # Workers that die while they load the model must not end the job; one that cannot load it must.
    context.max_consecutive_actor_init_deaths = 5
    if not verbose:
        logging.getLogger("ray").setLevel(logging.ERROR)
        logging.getLogger("ray.data").setLevel(logging.ERROR)


def living_nodes() -> list[Node]:
    """List the nodes of the connected cluster."""
    import ray

    return [
        Node(int(node["Resources"].get("CPU", 0)), dict(node["Resources"])) for node in ray.nodes() if node["Alive"]
    ]


def starts_ray(address: str | None) -> bool:
    """Tell whether `connect` would start Ray on this machine, so that the workers' machine is this one."""
    ray = sys.modules.get("ray")  # nobody has connected to a cluster without importing it
    return not (address or os.environ.get("RAY_ADDRESS") or (ray and ray.is_initialized()))


def check_device_on_workers(device: Device, engine: EngineOrAuto = "auto") -> None:
    """Check that an engine can use the device where Ray would place a worker. Takes seconds, so only for accelerators.

    Raises:
        UsageError: it cannot; with the way out.
    """
    import ray

    task = ray.remote(check_device).options(num_cpus=0, max_retries=0, **device.ray_options())
    try:
        ray.get(task.remote(device.in_worker(), engine))
    except ray.exceptions.RayTaskError as error:
        raise UsageError(f"{error.cause} (on the Ray worker that has the {device.resource})") from None
