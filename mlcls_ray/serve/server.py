"""Start the service, and stop it after its last answers."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from importlib.util import find_spec
from types import FrameType

from mlcls_ray.devices import parse_device
from mlcls_ray.engines.devices import check_device
from mlcls_ray.errors import UsageError
from mlcls_ray.job.cluster import check_device_on_workers, connect, starts_ray
from mlcls_ray.models.cache import open_model
from mlcls_ray.serve.config import TOKEN_VARIABLE, ServeConfig, count_replicas, token
from mlcls_ray.serve.wire import PATH
from mlcls_ray.terminal import SILENT, Steps, suppress_native_output

NAME = "mlcls"
RAY_SERVE_SETTINGS = {
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1000",
    "RAY_SERVE_FREEZE_GC_ON_STARTUP": "1",
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
}
"""Run a replica in one event loop: we never block it (decoding and scoring have their own threads), and a request saves changes of thread.
Give Serve's proxy a minute to start: on a busy machine it was killed again and again. Variables that are set already are kept."""
WITH_PROXY = {"RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0"}
"""Run Serve's proxy in one event loop too."""
WITHOUT_PROXY = {
    "RAY_SERVE_ENABLE_DIRECT_INGRESS": "1",
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0",
    "RAY_SERVE_PORT_QUARANTINE_S": "0",
}
"""Let a replica listen by itself, which Ray Serve calls direct ingress. Its drain waits for nothing but requests under way, and a replica
that replaces another gets the port at once."""
OTHER_WAYS = {"RAY_SERVE_ENABLE_DIRECT_INGRESS", "RAY_SERVE_ENABLE_HA_PROXY"}
"""Variables that decide what stands before the replicas: if one is set, nothing is changed."""
MISSING = "mlcls serve needs the extra 'serve': pip install 'mlcls-ray[serve]'"


def run_service(config: ServeConfig, verbose: bool = False, steps: Steps = SILENT) -> None:
    """Serve until SIGINT or SIGTERM, then answer the running requests and return.

    Raises:
        UsageError: the extra `serve` is not installed, the model, the device or the cluster does not exist, or a threshold or the
            label map names a class that the model lacks.
        RunError: the model cannot be loaded.
    """
    if find_spec("fastapi") is None:
        raise UsageError(MISSING)
    model = open_model(config.model)
    config.threshold.resolve(model.vocabulary, model.thresholds)
    config.map.resolve(model.vocabulary)
    device = parse_device(config.device)
    is_here = starts_ray(config.ray_address)
    is_direct = is_here and count_replicas(config) == 1 and not OTHER_WAYS & os.environ.keys()
    for name, value in (RAY_SERVE_SETTINGS | (direct_settings(config.port) if is_direct else WITH_PROXY)).items():
        os.environ.setdefault(name, value)
    if is_here:
        check_port(config.host, config.port)
        check_device(device, config.engine)
    steps.say("starting Ray" if is_here else "connecting to Ray")
    connect(config.ray_address, verbose, device)
    from ray import serve  # after connect: Ray Serve reads its environment when it is imported
    from ray.exceptions import RayError

    from mlcls_ray.job.capacity import wait_for_room
    from mlcls_ray.serve.app import bind

    nodes = wait_for_room(device, config.replicas, config.wait_s)
    if not device.is_cpu and not is_here:
        check_device_on_workers(device, config.engine)
    if not verbose:
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
    steps.say("starting the service, whose replicas load the model")
    stop = _stop_on_signals()
    logging_config = {"log_level": "WARNING" if not verbose else "INFO", "enable_access_log": verbose}
    http_options = {"host": config.host, "port": 0 if is_direct else config.port}
    # Serve's proxy is started in any case, and waited for. What nobody uses must not end a service on a slow machine.
    with contextlib.suppress(TimeoutError) if is_direct else contextlib.nullcontext():
        serve.start(http_options=http_options, logging_config=logging_config)
    application = bind(config, max(node.cpus for node in nodes), token(), logging_config)
    handle = serve.run(application, name=NAME, route_prefix="/")
    if is_direct:
        handle.health.remote()  # it looks for the replica now; to stop must not have to wait for that
    steps.pause()
    url = f"http://{config.host}:{config.port}{PATH}"
    access = f"with the token in {TOKEN_VARIABLE}" if token() else "without a token"
    print(f"serving {config.model} on {url} ({access}); /docs describes it", flush=True)
    stop.wait()
    print("stopping: answering the requests that are running", file=sys.stderr, flush=True)
    with contextlib.nullcontext() if verbose else suppress_native_output():
        if is_direct:  # a proxy refuses new requests by itself
            with contextlib.suppress(TimeoutError, RayError):
                handle.stop_accepting.remote().result(timeout_s=config.drain_s)
        # Waits for the replicas' last answers; shutdown alone would close their connections.
        serve.delete(NAME)
        serve.shutdown()


def direct_settings(port: int) -> dict[str, str]:
    """Return the variables that make the only replica listen on a port itself. Through Serve's proxy, in Python, a request costs two
    thirds more than decoding and scoring it.
    """
    ports = {
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(port),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(port + 1),  # the first port that is not used
    }
    return WITHOUT_PROXY | ports


def check_port(host: str, port: int) -> None:
    """Check that the service can listen: Ray Serve would try again and again.

    Raises:
        UsageError: it cannot; names the address and the reason.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise UsageError(
            f"cannot listen on {host}, port {port}: {error.strerror}; choose others by --host and --port"
        ) from None


def _stop_on_signals() -> threading.Event:
    """Return an event that SIGINT and SIGTERM set from now on, also while the service is still starting."""
    stop = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handle)
    return stop
