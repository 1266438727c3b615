"""`ServeConfig`: the options of the HTTP service, for the command line and YAML."""

from __future__ import annotations

import os
from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt

from mlcls_ray.config import EngineOptions, ImageLimits, ModelOptions, RayOptions

TOKEN_VARIABLE = "MLCLS_SERVE_TOKEN"  # noqa: S105
"""The bearer token comes from this variable only, so that no process list and no file of ours shows it."""


class ServiceOptions(ImageLimits):
    """Requests, and the replicas that answer them."""

    visualize: bool = Field(
        default=True, description="Return the annotated image, unless a request says whether it wants it."
    )
    host: str = Field(default="127.0.0.1", description="Address to listen on. 0.0.0.0: all addresses of the machine.")
    port: Annotated[int, Field(ge=1, le=65535)] = Field(default=8080, description="Port to listen on.")
    replicas: PositiveInt | None = Field(
        default=None,
        description="Number of copies of the model. Default: one for each device that is named, one on CPUs.",
    )
    batch_size: PositiveInt = Field(
        default=8, description="Largest number of images, of different requests, that are scored in one forward pass."
    )
    batch_wait_ms: Annotated[float, Field(ge=0)] = Field(
        default=2.0, description="Milliseconds that a batch waits for more images."
    )
    max_ongoing: PositiveInt = Field(default=64, description="Number of requests that a replica works on at once.")
    max_queued: PositiveInt = Field(
        default=256,
        description="Number of requests that wait in a replica beyond these; further ones are answered with 503.",
    )
    max_fetches: PositiveInt = Field(
        default=32,
        description="Number of images that a replica fetches from URLs at once. As many requests more may wait for it, within the time "
        "that their download may take; further ones are answered with 503. None of them keeps requests without a URL waiting.",
    )
    max_body_bytes: PositiveInt = Field(
        default=32_000_000, description="Bytes that a request may have; a larger one is answered with 413."
    )
    allow_private_urls: bool = Field(
        default=False, description="Also fetch images from private, loopback and link-local addresses."
    )
    drain_s: PositiveFloat = Field(
        default=20.0, description="Seconds that running requests have to end when the service stops."
    )


class ServeConfig(ServiceOptions, RayOptions, EngineOptions, ModelOptions):
    """One HTTP service."""


def count_replicas(config: ServeConfig) -> int:
    """Number of replicas: those that are asked for, or one for each device, or one on CPUs."""
    return config.replicas or len(config.device.each())


def token() -> str | None:
    """The bearer token that requests need; None: they need none."""
    return os.environ.get(TOKEN_VARIABLE) or None
