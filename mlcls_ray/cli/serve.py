"""`mlcls serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter


def serve(
    *,
    config: Path | None = None,
    model: str | None = None,
    device: str | None = None,
    engine: Literal["auto", "paddle", "openvino", "onnxruntime", "tensorrt"] | None = None,
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"] | None = None,
    threshold: Annotated[list[str] | None, Parameter(negative=())] = None,
    host: str | None = None,
    port: int | None = None,
    replicas: int | None = None,
    batch_size: int | None = None,
    visualize: bool | None = None,
    allow_private_urls: Annotated[bool | None, Parameter(negative=())] = None,
    print_config: Annotated[bool, Parameter(negative=())] = False,
    verbose: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Answer HTTP requests in PaddleX's wire format, until Ctrl-C or SIGTERM.

    POST /multilabel-image-classification labels an image, GET /health answers, /docs describes both. Listens on 127.0.0.1 unless told
    otherwise. Where the variable MLCLS_SERVE_TOKEN is set, requests need `Authorization: Bearer` with its value.

    Parameters
    ----------
    config
        A YAML file with the same fields and more (see --print-config). Flags override it.
    model
        A name (see `mlcls models`) or a model folder. Default: the starter model that ships with the package.
    device
        cpu, gpu:0,1, npu …; one replica for each card.
    engine
        What executes the network. Default: auto, the fastest on this machine that gives Paddle's labels (tried once).
    precision
        fp32, bf16 on CPUs that have it, or int8 of a model from `mlcls quantize`. Default: auto, as above; never int8.
    threshold
        A number, class=number pairs, or both, where a request gives none. Default: the model's own.
    host
        Address to listen on.
    port
        Port to listen on.
    replicas
        Copies of the model.
    batch_size
        Images of different requests that are scored together.
    visualize
        Whether the annotated image comes back where a request does not say.
    allow_private_urls
        Fetch images from private, loopback and link-local addresses too.
    print_config
        Print the whole configuration as YAML, and do nothing.
    verbose
        Show Ray's own messages, and tracebacks.
    """
    import yaml

    from mlcls_ray.config import load_config
    from mlcls_ray.labels.thresholds import parse_thresholds
    from mlcls_ray.serve.config import ServeConfig
    from mlcls_ray.serve.server import run_service

    given: dict[str, Any] = {
        "model": model,
        "device": device,
        "engine": engine,
        "precision": precision,
        "threshold": parse_thresholds(threshold) if threshold else None,
        "host": host,
        "port": port,
        "replicas": replicas,
        "batch_size": batch_size,
        "visualize": visualize,
        "allow_private_urls": allow_private_urls,
    }
    chosen = load_config(ServeConfig, config, given)
    if print_config:
        print(yaml.safe_dump(chosen.model_dump(mode="json"), sort_keys=False), end="")
        return
    run_service(chosen, verbose)
