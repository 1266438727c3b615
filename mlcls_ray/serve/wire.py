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
TopK = Annotated[
    Annotated[int, Field(ge=1)] | None, Field(description="Return this many labels at most, the best ones.")
]
Visualize = Annotated[
    bool | None,
    Field(description="Whether the annotated image comes back, as JPEG in base64. null: as the service is set."),
]
LogId = Annotated[Annotated[str, Field(max_length=200)] | None, Field(description="Comes back in the answer.")]


class InferenceParams(BaseModel):
    """The place for options in PaddleX's documentation. A `threshold` beside the image overrides this one."""

    threshold: Threshold | None = None
    topK: TopK = None  # noqa: N815


class RequestOptions(BaseModel):
    """The options of a request."""

    model_config = ConfigDict(extra="ignore")

    threshold: Threshold | None = Field(
        default=None,
        description="A class becomes a label where its score is greater: one number, a list with one for each class, or a mapping from "
        "class ids or names to numbers, with `default`.",
    )
    visualize: Visualize = None
    inferenceParams: InferenceParams | None = Field(  # noqa: N815
        default=None, description="PaddleX's place for `threshold` and `topK`; a `threshold` beside the image wins."
    )
    logId: LogId = None  # noqa: N815


class InferRequest(RequestOptions):
    """A request in JSON."""

    image: Annotated[str, Field(min_length=1)] = Field(
        description="An http(s):// URL, or a file's bytes in base64 (a `data:` URL works too)."
    )


class QueryOptions(BaseModel):
    """Options in the URL, for a request whose body is the image file itself."""

    model_config = ConfigDict(extra="ignore")

    threshold: Probability | None = Field(
        default=None, description="A class becomes a label where its score is greater: one number for every class."
    )
    visualize: Visualize = None
    topK: TopK = None  # noqa: N815
    logId: LogId = None  # noqa: N815

    def to_options(self) -> RequestOptions:
        """Translate to the options of a request in JSON."""
        return RequestOptions(
            threshold=self.threshold,
            visualize=self.visualize,
            inferenceParams=InferenceParams(topK=self.topK),
            logId=self.logId,
        )


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
