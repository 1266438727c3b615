"""Start the service, and stop it after its last answers."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from importlib.util import find_spec
from types import FrameType

from mlcls_ray.devices import parse_device
from mlcls_ray.engines.devices import check_device
from mlcls_ray.errors import UsageError
from mlcls_ray.job.cluster import check_device_on_workers, connect, starts_ray
from mlcls_ray.models.cache import open_model
from mlcls_ray.serve.config import TOKEN_VARIABLE, ServeConfig, token
from mlcls_ray.serve.wire import PATH
from mlcls_ray.terminal import SILENT, Steps, suppress_native_output

NAME = "mlcls"
RAY_SERVE_SETTINGS = {
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1000",
}
"""Run proxy and replica in one event loop each: we never block it (decoding and scoring have their own threads), and a request saves four
changes of thread. Variables that are set already are kept."""
MISSING = "mlcls serve needs the extra 'serve': pip install 'mlcls-ray[serve]'"


def run_service(config: ServeConfig, verbose: bool = False, steps: Steps = SILENT) -> None:
    """Serve until SIGINT or SIGTERM, then answer the running requests and return.

    Raises:
        UsageError: the extra `serve` is not installed, or the model, the device or the cluster does not exist.
        RunError: the model cannot be loaded.
    """
    if find_spec("fastapi") is None:
        raise UsageError(MISSING)
    open_model(config.model)
    device = parse_device(config.device)
    for name, value in RAY_SERVE_SETTINGS.items():
        os.environ.setdefault(name, value)
    is_here = starts_ray(config.ray_address)
    if is_here:
        check_device(device, config.engine)
    steps.say("starting Ray" if is_here else "connecting to Ray")
    connect(config.ray_address, verbose, device)
    from ray import serve  # after connect: Ray Serve reads its environment when it is imported

    from mlcls_ray.job.capacity import wait_for_room
    from mlcls_ray.serve.app import bind

    nodes = wait_for_room(device, config.replicas, config.wait_s)
    if not device.is_cpu and not is_here:
        check_device_on_workers(device, config.engine)
    if not verbose:
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
    steps.say("starting the service, whose replicas load the model")
    stop = _stop_on_signals()
    serve.start(
        http_options={"host": config.host, "port": config.port},
        logging_config={"log_level": "WARNING" if not verbose else "INFO", "enable_access_log": verbose},
    )
    serve.run(bind(config, max(node.cpus for node in nodes), token()), name=NAME, route_prefix="/")
    steps.pause()
    url = f"http://{config.host}:{config.port}{PATH}"
    access = f"with the token in {TOKEN_VARIABLE}" if token() else "without a token"
    print(f"serving {config.model} on {url} ({access}); /docs describes it", flush=True)
    stop.wait()
    print("stopping: answering the requests that are running", file=sys.stderr, flush=True)
    with contextlib.nullcontext() if verbose else suppress_native_output():
        # Waits for the replicas' last answers; shutdown alone would close their connections.
        serve.delete(NAME)
        serve.shutdown()


def _stop_on_signals() -> threading.Event:
    """Return an event that SIGINT and SIGTERM set from now on, also while the service is still starting."""
    stop = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handle)
    return stop
