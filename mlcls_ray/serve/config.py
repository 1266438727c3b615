"""What the service is told. One frozen model for the command line, YAML and `jobs/serve.py`."""

from __future__ import annotations

import os
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt

from mlcls_ray.config import MAX_PIXELS, AskedEngine, AskedPrecision, Thresholds

TOKEN_VARIABLE = "MLCLS_SERVE_TOKEN"  # noqa: S105
"""The bearer token comes from the environment only, so that no process list and no file of ours shows it."""


class ServeConfig(BaseModel):
    """One service. Flags override the file; the file overrides these defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(default="starter", description="A name (`mlcls models`) or a model folder")
    device: str = Field(default="cpu", description="cpu, gpu, gpu:0,1, npu …; one replica for each card")
    engine: AskedEngine = Field(default="auto", description="What executes the network; auto: the fastest here")
    precision: AskedPrecision = Field(
        default="auto", description="fp32, or bf16 (faster on CPUs that have it, coarser)"
    )
    threshold: Thresholds = Field(
        default=Thresholds(), description="Where the request gives none; none: the model's own"
    )
    visualize: bool = Field(
        default=True, description="Whether the annotated image comes back, where the request is silent"
    )

    host: str = Field(default="127.0.0.1", description="Address to listen on; 0.0.0.0 for all")
    port: Annotated[int, Field(ge=1, le=65535)] = Field(default=8080, description="Port to listen on")
    ray_address: str | None = Field(default=None, description="A Ray cluster; None: RAY_ADDRESS, or Ray started here")
    replicas: PositiveInt | None = Field(
        default=None, description="Copies of the model; None: one, or one for each card"
    )

    batch_size: PositiveInt = Field(default=8, description="Images of different requests scored in one forward pass")
    batch_wait_ms: Annotated[float, Field(ge=0)] = Field(default=2.0, description="How long a batch waits to fill")
    max_ongoing: PositiveInt = Field(default=64, description="Requests that a replica works on at once")
    max_queued: PositiveInt = Field(default=256, description="Requests that wait beyond that; more are answered 503")

    max_body_bytes: PositiveInt = Field(default=32_000_000, description="A larger request is answered 413")
    max_pixels: Annotated[int, Field(gt=0, le=MAX_PIXELS)] = Field(default=MAX_PIXELS, description="Of an image")
    timeout_s: PositiveFloat = Field(default=30.0, description="Seconds that fetching an image's URL may take")
    allow_private_urls: bool = Field(
        default=False, description="Fetch images from private, loopback and link-local addresses too"
    )
    drain_s: PositiveFloat = Field(default=20.0, description="Seconds that requests under way have at the end")


def token() -> str | None:
    return os.environ.get(TOKEN_VARIABLE) or None
