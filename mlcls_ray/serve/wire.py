"""PaddleX's wire format: the models of requests and responses. Unknown fields of a request are ignored, as in PaddleX."""

from __future__ import annotations

from typing import Annotated
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field

from mlcls_ray.labels.thresholds import Probability

PATH = "/multilabel-image-classification"
Threshold = Probability | list[Probability] | dict[str, Probability]
"""One number, a list with one per class, or a mapping from class id or name to number, with `default`.

No text and no path, which `parse_thresholds` would take too: a client must not make the server read a file."""


class InferenceParams(BaseModel):
    """The place for options in PaddleX's documentation. A `threshold` beside the image overrides this one."""

    threshold: Threshold | None = None
    topK: Annotated[int, Field(ge=1)] | None = None  # noqa: N815


class InferRequest(BaseModel):
    """A request. `image`: an http(s):// URL, or a file's bytes in base64 (a `data:` URL works too)."""

    model_config = ConfigDict(extra="ignore")

    image: Annotated[str, Field(min_length=1)]
    threshold: Threshold | None = None
    visualize: bool | None = None
    inferenceParams: InferenceParams | None = None  # noqa: N815
    logId: Annotated[str, Field(max_length=200)] | None = None  # noqa: N815


class Category(BaseModel):
    """One label: class id, name and score, rounded to 5 decimals."""

    id: int
    name: str
    score: float


class InferResult(BaseModel):
    """The labels, best first; `image`: the annotated JPEG in base64, if the request wants one."""

    categories: list[Category]
    image: str | None = None


class Envelope(BaseModel):
    """The fields of every response. `errorCode`: 0, or the HTTP status."""

    logId: str = Field(default_factory=lambda: str(uuid4()))  # noqa: N815
    errorCode: int = 0  # noqa: N815
    errorMsg: str = "Success"  # noqa: N815


class InferResponse(Envelope):
    """The response with a result."""

    result: InferResult
