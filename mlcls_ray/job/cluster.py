"""The Ray cluster: connect to one, or start one on this machine."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import sys
from typing import Any, NamedTuple

from mlcls_ray.devices import DEVICE_KINDS, Device
from mlcls_ray.engines.devices import check_device, check_paddle_device, count_devices
from mlcls_ray.errors import RunError, UsageError, short_message
from mlcls_ray.field_types import EngineOrAuto
from mlcls_ray.job.surroundings import check_surroundings, needs_own_token
from mlcls_ray.terminal import SILENT, Steps, own_sigterm_handler, suppress_native_output

QUIET = {"RAY_DATA_DISABLE_PROGRESS_BARS": "1", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
QUIET_BACKEND = {"RAY_BACKEND_LOG_LEVEL": "fatal"}
"""Only for a Ray of our own, whose start is silent: a driver of another one would print a line that it has read the variable."""
LOOPBACK_ONLY = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Ray resolves 127.0.0.1 to the machine's public address, and then listens everywhere, unless this variable says that there will be
no cluster. Its name is history."""
ON_DEMAND = {"RAY_prestart_worker_first_driver": "0"}
"""Otherwise Ray starts a worker for each CPU, before it knows which workers a job needs, and lets the job wait for them."""
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
    target = cluster_address(address)
    own = {} if target else LOOPBACK_ONLY | ON_DEMAND | ({} if verbose else QUIET_BACKEND)
    for name, value in {**own, **({} if verbose else QUIET)}.items():
        os.environ.setdefault(name, value)
    import ray  # it reads the environment above when it is imported

    if not ray.is_initialized():
        options: dict[str, Any] = {"address": target} if target else {"address": "local", "include_dashboard": False}
        if not target:
            check_surroundings()
            if needs_own_token():
                os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
            options |= local_devices(device) if device is not None else {}
        if not verbose:
            options |= {"log_to_driver": False, "logging_level": logging.ERROR}
        if target:
            check_reachable(target)
        # Only where Ray is ours: a foreign cluster may end this process, and then says why on stderr only.
        is_quiet = not (verbose or target)
        with contextlib.ExitStack() as stack:
            stack.enter_context(own_sigterm_handler())
            if is_quiet:
                from mlcls_ray.job.own_ray import own_node

                stack.enter_context(suppress_native_output())
                stack.enter_context(own_node())
            try:
                ray.init(**options)
            except Exception as error:  # Ray has no class of its own for a node that does not start in time
                if not target:
                    raise RunError(
                        f"Ray does not start: {short_message(error)} Is the machine out of memory, or busy with other work? Try again"
                    ) from error
                if not isinstance(error, (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError)):
                    raise
                raise UsageError(
                    f"the Ray cluster at '{target}' cannot be reached: {short_message(error)}. "
                    "Is the address right, and RAY_AUTH_TOKEN set?"
                ) from None
    _configure_data(verbose)


def disconnect(steps: Steps = SILENT) -> None:
    """End the Ray that `connect` started here, or leave the cluster. At the process's end it would happen by itself, in silence."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return
    steps.say("stopping Ray")
    with suppress_native_output():
        ray.shutdown()


def cluster_address(address: str | None) -> str | None:
    """Return the address of the cluster to connect to: `address`, or RAY_ADDRESS; None where Ray is to be started here."""
    target = address or os.environ.get("RAY_ADDRESS")
    return None if target == "local" else target


def starts_ray(address: str | None) -> bool:
    """Tell whether `connect` would start Ray on this machine, so that the workers' machine is this one."""
    ray = sys.modules.get("ray")  # nobody has connected to a cluster without importing it
    is_connected = getattr(ray, "is_initialized", None)  # None: another thread is just importing it
    return not (cluster_address(address) or (is_connected and is_connected()))


def local_devices(device: Device) -> dict[str, Any]:
    """Return the options that tell a Ray that is started here of this machine's devices. Shows its workers those that are named.

    Ray finds NVIDIA's and AMD's by itself; it is told of those that only Paddle sees. Paddle is not loaded for the others.
    """
    kind = DEVICE_KINDS[device.kind]
    is_found_by_ray = kind.ray_managed and not kind.is_plugin
    if not is_found_by_ray:
        with suppress_native_output():
            check_paddle_device(device)  # before the variable below changes what this process sees
            count = len(device.indices) or count_devices(device)
    if kind.ray_managed and device.indices:
        seen = [name for name in os.environ.get(kind.visible_devices, "").split(",") if name]
        if seen and max(device.indices) >= len(seen):
            raise UsageError(f"device '{device}': {kind.visible_devices}={','.join(seen)} shows {len(seen)} device(s)")
        os.environ[kind.visible_devices] = ",".join(seen[index] if seen else str(index) for index in device.indices)
    if is_found_by_ray:
        shown = os.environ.get(kind.visible_devices, "").split(",")
        # Ray counts whole cards, and of two slices of one card it would use one.
        return {"num_gpus": len(shown)} if device.kind == "gpu" and shown[0].startswith("MIG-") else {}
    return {"num_gpus": count} if kind.resource == "GPU" else {"resources": {kind.resource: float(count)}}


def check_reachable(address: str, timeout_s: float = CONNECT_TIMEOUT_S) -> None:
    """Check that a head node of Ray answers at an address, or that the address has no port.

    Where nothing answers, Ray's C++ side would end the process after half a minute without an exception; where something else answers,
    it would wait for five minutes.

    Raises:
        UsageError: nothing answers, or something else, or the token is wrong.
    """
    scheme, _, place = address.rpartition("://")
    host, separator, port = place.rpartition(":")
    if not separator or not port.isdecimal():
        return  # "auto" and the like: Ray finds it by itself
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=timeout_s).close()
    except OSError as error:
        raise UsageError(f"the Ray cluster at '{address}' cannot be reached: {error}") from None
    if not scheme:
        from mlcls_ray.job.ray_private import head_node_problem

        problem = head_node_problem(place, timeout_s)
        if problem:
            raise UsageError(f"the Ray cluster at '{address}': {problem}")


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

    return [_node(dict(node["Resources"])) for node in ray.nodes() if node["Alive"]]


def free_nodes() -> list[Node]:
    """List the nodes of the connected cluster as if they had only what no task and no actor holds."""
    import ray

    from mlcls_ray.job.ray_private import free_resources

    free = free_resources()
    return [_node(free.get(node["NodeID"], {})) for node in ray.nodes() if node["Alive"]]


def _node(resources: dict[str, float]) -> Node:
    return Node(int(resources.get("CPU", 0)), resources)


def check_device_on_workers(device: Device, engine: EngineOrAuto = "auto") -> None:
    """Check that an engine can use the device where Ray would place a worker. Takes seconds, so only for accelerators.

    Raises:
        UsageError: it cannot; with the way out.
    """
    import ray

    # Its process ends with it: in another one's place it would go on seeing this task's device.
    task = ray.remote(max_calls=1, max_retries=0, num_cpus=0, **device.ray_options())(check_device)
    try:
        ray.get(task.remote(device.in_worker(), engine))
    except ray.exceptions.RayTaskError as error:
        raise UsageError(f"{error.cause} (on the Ray worker that has the {device.resource})") from None
