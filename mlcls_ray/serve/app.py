"""The service: one Ray Serve deployment. An image is decoded in a thread, scored in a batch with those of other requests, and answered.

Ray pickles the class when it is decorated. So everything that it uses is defined above it, and annotations are types here, not strings.
"""

import asyncio
import base64
import binascii
import hmac
import json
from concurrent.futures import ThreadPoolExecutor
from itertools import count, takewhile
from typing import Any

import numpy as np
from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from ray import serve

from mlcls_ray import __version__
from mlcls_ray.config import FetchOptions
from mlcls_ray.devices import parse_device
from mlcls_ray.engines.autotune import TrialRequest, resolve_engine
from mlcls_ray.engines.load import load_engine
from mlcls_ray.errors import ImageError, Status, UsageError
from mlcls_ray.images.chips import select_chips
from mlcls_ray.images.decode import decode
from mlcls_ray.images.draw import Chip, annotate
from mlcls_ray.job.devices import claim_device
from mlcls_ray.labels.thresholds import parse_thresholds
from mlcls_ray.models.cache import open_model
from mlcls_ray.serve.config import ServeConfig
from mlcls_ray.serve.wire import PATH, Category, Envelope, InferRequest, InferResponse, InferResult
from mlcls_ray.storage.fetch import Fetcher
from mlcls_ray.storage.uris import HTTP

HTTP_STATUS = {
    Status.TOO_LARGE: 413,
    Status.DENIED: 403,
    Status.MISSING: 424,
    Status.TIMEOUT: 424,
    Status.HTTP_4XX: 424,
    Status.HTTP_5XX: 424,
    Status.ENGINE: 500,
}
"""HTTP status for each status of an image that could not be labeled; the others become 422. 424: the image's own server failed."""
READERS_PER_THREAD = 4
"""Threads that fetch and decode images, for each thread of the engine: they mostly wait for the network."""

REFERENCE = "#/components/schemas/{model}"
REQUEST_SCHEMA = InferRequest.model_json_schema(ref_template=REFERENCE)
REQUEST_BODY = {name: value for name, value in REQUEST_SCHEMA.items() if name != "$defs"}
"""The schema of the request's body. FastAPI cannot derive it, because we read the body ourselves to stop at its size limit."""

api = FastAPI(
    title="mlcls_ray",
    version=__version__,
    description="Multi-label image classification in PaddleX's wire format.",
)


def _openapi() -> dict[str, Any]:
    if not api.openapi_schema:
        schema = get_openapi(title=api.title, version=api.version, description=api.description, routes=api.routes)
        schema["components"]["schemas"] |= REQUEST_SCHEMA["$defs"]
        api.openapi_schema = schema
    return api.openapi_schema


api.openapi = _openapi  # type: ignore[method-assign]


class RequestError(Exception):
    """A request cannot be answered with a result. `code` is the HTTP status."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def _decode_base64(text: str) -> bytes:
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise RequestError(422, "image: neither an http(s):// URL nor base64") from None


def _annotate_base64(image: np.ndarray, labels: list[Chip]) -> str:
    return base64.b64encode(annotate(image, labels)).decode()


def _error_response(code: int, message: str, log_id: str | None) -> JSONResponse:
    log_fields = {"logId": log_id} if log_id else {}
    return JSONResponse(Envelope(errorCode=code, errorMsg=message, **log_fields).model_dump(), status_code=code)


@serve.deployment
@serve.ingress(api)
class LabelService:
    """One replica: a loaded model, `POST /multilabel-image-classification` and `GET /health`."""

    def __init__(self, config: ServeConfig, threads: int, token: str | None = None) -> None:
        """Load the model.

        Args:
            threads: CPU threads of one forward pass.
            token: the bearer token that clients must send. None: none is needed.

        Raises:
            UsageError: the model, the device, the engine or a threshold is wrong.
            RunError: the engine cannot load the model.
        """
        self.config = config
        self.token = token
        self.model = open_model(config.model)
        self.claim = claim_device(parse_device(config.device), workers_per_device=1)
        self.thresholds = config.threshold.resolve(self.model.vocabulary, self.model.thresholds).values
        choice = resolve_engine(
            TrialRequest(
                engine=config.engine,
                precision=config.precision,
                model=self.model,
                thresholds=self.thresholds,
                device=self.claim.device,
                threads=threads,
                batch_size=config.batch_size,
            )
        )
        self.engine = load_engine(choice.engine, self.model, self.claim.device, threads, choice.precision)
        for size in takewhile(lambda size: size < config.batch_size, (2**power for power in count())):
            self.engine.warm_up(size)  # a batch holds the requests that came in time: it can have any size
        self.engine.warm_up(config.batch_size)
        fetch_options = FetchOptions(max_bytes=config.max_body_bytes, timeout_s=config.timeout_s, fetch_attempts=1)
        self.fetcher = Fetcher(fetch_options, is_public_only=not config.allow_private_urls)
        self.readers = ThreadPoolExecutor(READERS_PER_THREAD * threads, thread_name_prefix="read")
        self.scorer = ThreadPoolExecutor(1, thread_name_prefix="score")  # an engine is used by one thread at a time
        self.score.set_max_batch_size(config.batch_size)
        self.score.set_batch_wait_timeout_s(config.batch_wait_ms / 1000)

    @api.get("/health", response_model=Envelope)
    async def health(self) -> Envelope:
        return Envelope(errorMsg="Healthy")

    @api.post(
        PATH,
        response_model=InferResponse,
        response_model_exclude_none=True,
        responses={code: {"model": Envelope} for code in (400, 401, 403, 413, 422, 424, 500, 503)},
        openapi_extra={"requestBody": {"required": True, "content": {"application/json": {"schema": REQUEST_BODY}}}},
    )
    async def infer(self, request: Request) -> Any:
        """Label one image."""
        log_id = None
        try:
            self._check_token(request)
            body = await self._read_body(request)
            log_id = body.logId
            return await self._label(body)
        except RequestError as error:
            return _error_response(error.code, str(error), log_id)
        except ImageError as error:
            return _error_response(HTTP_STATUS.get(error.status, 422), f"{error.status}: {error}", log_id)

    async def _label(self, body: InferRequest) -> JSONResponse:
        """Answer a valid request.

        Raises:
            RequestError: the threshold or the image's encoding is wrong.
            ImageError: the image cannot be read or scored.
        """
        loop = asyncio.get_running_loop()
        thresholds = self._thresholds(body)
        image, pixels = await loop.run_in_executor(self.readers, self._read_image, body.image)
        scores: np.ndarray = await self.score(pixels)
        (labels,) = select_chips(scores[None], thresholds, self.model.vocabulary)
        if labels is None:
            raise ImageError(Status.ENGINE, "the engine gave scores that are not finite")
        labels = labels[: body.inferenceParams.topK if body.inferenceParams else None]
        annotated = None
        if self.config.visualize if body.visualize is None else body.visualize:
            annotated = await loop.run_in_executor(self.readers, _annotate_base64, image, labels)
        categories = [Category(id=label.class_id, name=label.name, score=label.score) for label in labels]
        log_fields = {"logId": body.logId} if body.logId else {}
        response = InferResponse(result=InferResult(categories=categories, image=annotated), **log_fields)
        return JSONResponse(response.model_dump(exclude_none=True))

    @serve.batch(max_batch_size=8, batch_wait_timeout_s=0.002)
    async def score(self, pixels: list[np.ndarray]) -> list[np.ndarray]:
        """Score the pixels, uint8 [H, W, 3], of several requests in one batch: float32 [C] for each."""
        batch = np.stack(pixels)
        scores = await asyncio.get_running_loop().run_in_executor(self.scorer, self.engine.score, batch)
        return list(scores)

    def _check_token(self, request: Request) -> None:
        if self.token is None:
            return
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(token.strip().encode(), self.token.encode()):
            raise RequestError(401, "send the service's token: 'Authorization: Bearer …'")

    async def _read_body(self, request: Request) -> InferRequest:
        """Read and parse the body. Reading stops at the size limit, whatever Content-Length says.

        Raises:
            RequestError: the body is too large, or is not valid.
        """
        limit = self.config.max_body_bytes
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                raise RequestError(413, f"the body is larger than {limit} bytes")
        try:
            return InferRequest.model_validate_json(bytes(body))
        except ValidationError as error:
            details = [{key: item[key] for key in ("type", "loc", "msg")} for item in error.errors()]
            raise RequestError(422, json.dumps(details)) from None

    def _thresholds(self, body: InferRequest) -> np.ndarray:
        """Resolve the request's threshold, or else the service's own: float32 [C]."""
        threshold = body.threshold
        if threshold is None and body.inferenceParams is not None:
            threshold = body.inferenceParams.threshold
        if threshold is None:
            return self.thresholds
        try:
            return parse_thresholds(threshold).resolve(self.model.vocabulary, self.model.thresholds).values
        except UsageError as error:
            raise RequestError(422, str(error)) from None

    def _read_image(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """Read a URL or base64: the image, RGB uint8 [h, w, 3], and the model's pixels, uint8 [H, W, 3]."""
        is_url = text.partition("://")[0].lower() in HTTP
        image_bytes = self.fetcher.fetch_once(text).image_bytes if is_url else _decode_base64(text)
        image = decode(image_bytes, self.config.max_pixels).image
        return image, self.model.preprocess.to_pixels(image)


def bind(config: ServeConfig, cpus: int, token: str | None) -> serve.Application:
    """Build the Ray Serve application of a configuration.

    Args:
        cpus: CPUs of one machine; on CPUs its replicas share them.
        token: the bearer token that clients must send. None: none is needed.

    Raises:
        UsageError: the device is unknown.
    """
    device = parse_device(config.device)
    replicas = config.replicas or len(device.each())
    threads = max(1, cpus // replicas) if device.is_cpu else 1
    num_cpus = max(1, (cpus - 1) // replicas) if device.is_cpu else 1
    deployment = LabelService.options(  # type: ignore[attr-defined]
        num_replicas=replicas,
        max_ongoing_requests=config.max_ongoing,
        max_queued_requests=config.max_queued,
        ray_actor_options={"num_cpus": num_cpus, **device.ray_options()},
        graceful_shutdown_timeout_s=config.drain_s,
        graceful_shutdown_wait_loop_s=0.2,
    )
    application: serve.Application = deployment.bind(config, threads, token)
    return application
