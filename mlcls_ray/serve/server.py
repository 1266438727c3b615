"""Starting the service and ending it in good order."""

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
from mlcls_ray.errors import UsageError
from mlcls_ray.job.cluster import check_device_on_workers, connect, living_nodes
from mlcls_ray.job.pools import check_resources
from mlcls_ray.models.cache import open_model
from mlcls_ray.serve.config import TOKEN_VARIABLE, ServeConfig, token
from mlcls_ray.serve.wire import PATH
from mlcls_ray.terminal import suppress_native_output

NAME = "mlcls"
FOR_THROUGHPUT = {
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1000",
}
"""One event loop in proxy and replica: nothing of ours blocks it (decoding and scoring have threads of their own), and a request does
not change threads four times. What is set already stays."""
MISSING = "mlcls serve needs the extra 'serve': pip install 'mlcls-ray[serve]'"


def run_service(config: ServeConfig, verbose: bool = False) -> None:
    """Serve until SIGINT or SIGTERM; requests under way then get their answers first.

    Raises:
        UsageError: the extra is not installed, or the model, the device or the cluster is not there.
        RunError: the model cannot be loaded.
    """
    if find_spec("fastapi") is None:
        raise UsageError(MISSING)
    open_model(config.model)
    device = parse_device(config.device)
    for name, value in FOR_THROUGHPUT.items():
        os.environ.setdefault(name, value)
    connect(config.ray_address, verbose, device)
    from ray import serve  # after connect: Ray reads its environment when it is imported

    from mlcls_ray.serve.app import bind

    nodes = living_nodes()
    check_resources(device, nodes)
    if device.kind != "cpu":
        check_device_on_workers(device)
    if not verbose:
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
    asked = _asked_to_end()
    serve.start(
        http_options={"host": config.host, "port": config.port},
        logging_config={"log_level": "WARNING" if not verbose else "INFO", "enable_access_log": verbose},
    )
    serve.run(bind(config, max(node.cpus for node in nodes), token()), name=NAME, route_prefix="/")
    guarded = f"with the token in {TOKEN_VARIABLE}" if token() else "without a token"
    print(
        f"serving {config.model} on http://{config.host}:{config.port}{PATH} ({guarded}); /docs describes it",
        flush=True,
    )
    asked.wait()
    print("draining", file=sys.stderr, flush=True)
    with contextlib.nullcontext() if verbose else suppress_native_output():
        serve.delete(
            NAME
        )  # waits for the replicas' last answers; shutdown alone would close the connections under them
        serve.shutdown()


def _asked_to_end() -> threading.Event:
    """Set by SIGINT and SIGTERM from now on, also while the service is still starting."""
    asked = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        asked.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask)
    return asked
