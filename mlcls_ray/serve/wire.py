"""PaddleX's wire format: what comes in, what goes out. Unknown fields are ignored, as PaddleX does."""

from __future__ import annotations

from typing import Annotated
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field

from mlcls_ray.labels.thresholds import Probability

PATH = "/multilabel-image-classification"
Threshold = Probability | list[Probability] | dict[str, Probability]
"""A number, one per class, or a mapping from class id or name to number, with `default`.

`Thresholds` takes words and paths too; they are left out here, so that a client cannot make the server read a file."""


class InferenceParams(BaseModel):
    """Where PaddleX's documentation puts these; a threshold beside the image wins."""

    threshold: Threshold | None = None
    topK: Annotated[int, Field(ge=1)] | None = None  # noqa: N815


class InferRequest(BaseModel):
    """`image`: an http(s):// URL, or a file's bytes in base64 (a `data:` URL works too)."""

    model_config = ConfigDict(extra="ignore")

    image: Annotated[str, Field(min_length=1)]
    threshold: Threshold | None = None
    visualize: bool | None = None
    inferenceParams: InferenceParams | None = None  # noqa: N815
    logId: Annotated[str, Field(max_length=200)] | None = None  # noqa: N815


class Category(BaseModel):
    """One label."""

    id: int
    name: str
    score: float


class InferResult(BaseModel):
    """Best label first; `image` is the annotated JPEG in base64, where it was asked for."""

    categories: list[Category]
    image: str | None = None


class Envelope(BaseModel):
    """Around every answer. `errorCode`: 0, or the HTTP status."""

    logId: str = Field(default_factory=lambda: str(uuid4()))  # noqa: N815
    errorCode: int = 0  # noqa: N815
    errorMsg: str = "Success"  # noqa: N815


class InferResponse(Envelope):
    """The answer to a good request."""

    result: InferResult
