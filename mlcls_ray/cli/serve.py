"""`mlcls serve`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from mlcls_ray.cli.flags import NO_FLAGS, Config, PrintConfig, Verbose, flags
from mlcls_ray.config_file import dump_config, load_config
from mlcls_ray.serve.config import ServeConfig
from mlcls_ray.terminal import showing_steps

if TYPE_CHECKING:
    ServeFlags = Mapping[str, Any]
else:
    ServeFlags = Annotated[flags(ServeConfig), Parameter(name="*")]


def serve(
    *,
    options: ServeFlags = NO_FLAGS,
    config: Config = None,
    print_config: PrintConfig = False,
    verbose: Verbose = False,
) -> None:
    """Answer HTTP requests in PaddleX's wire format, until Ctrl-C or SIGTERM.

    POST /multilabel-image-classification labels an image, GET /health answers, and /docs describes both. A request may bring its own
    threshold. The service listens on 127.0.0.1 by default. If the variable MLCLS_SERVE_TOKEN is set, requests need
    `Authorization: Bearer` with its value.
    """
    service = load_config(ServeConfig, config, options)
    if print_config:
        print(dump_config(service), end="")
        return
    with showing_steps() as steps:
        steps.say(f"opening the model {service.model}", on_terminal_only=True)  # an error is one line
        from mlcls_ray.serve.server import run_service

        run_service(service, verbose, steps)
