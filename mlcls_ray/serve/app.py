"""The service: one Ray Serve deployment. An image is decoded in a thread, scored in a batch with those of other requests, and answered.

What waits for others (a body, an image's own server) has places of its own, so that it keeps nobody else from being answered.

Ray pickles the class when it is decorated. So everything that it uses is defined above it, and annotations are types here, not strings.
"""

import asyncio
import base64
import hmac
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count, takewhile
from typing import Any

import numpy as np
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from ray import serve
from starlette.exceptions import HTTPException

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
from mlcls_ray.serve.body import LabelRequest, RequestError, parse_request, read_body
from mlcls_ray.serve.config import ServeConfig, count_replicas
from mlcls_ray.serve.documentation import OPERATION, describe, render_page
from mlcls_ray.serve.slots import FullError, Memory, Slots
from mlcls_ray.serve.wire import PATH, Category, Envelope, InferResponse, InferResult, RequestOptions
from mlcls_ray.storage.fetch import Fetcher

HTTP_STATUS = {
    Status.TOO_LARGE: 413,
    Status.DENIED: 403,
    Status.MISSING: 424,
    Status.TIMEOUT: 424,
    Status.HTTP_4XX: 424,
    Status.HTTP_5XX: 424,
    Status.ENGINE: 500,
}
"""HTTP status for each status of an image that could not be labeled; the others become 422."""
ERRORS = {
    400: "the request is not valid HTTP",
    401: "the service's token is missing, or wrong",
    403: "the image's address or server is forbidden",
    408: "the body did not arrive in time",
    413: "the body or the image is too large",
    422: "the request is not valid, or the image cannot be read",
    424: "the image's own server failed, or was too slow",
    500: "the service failed",
    503: "the service has too much to do; try again later",
}
"""The meaning of each status of an answer that is an error."""
MIN_READERS = 4
"""Threads that decode images; as many as the engine has, if that is more."""
SPARE_PLACES = 32
"""Requests that Ray lets in beyond those that label: /health and /docs answer while everything else is full."""
STOPPING = "the service is stopping"
BUSY = "as many requests wait as may wait (max_queued); try again later"
BUSY_FETCHING = "as many images are being fetched as may be (max_fetches); try again later, or send the image itself"

api = FastAPI(
    title="mlcls_ray",
    version=__version__,
    description="Multi-label image classification in PaddleX's wire format.",
    docs_url=None,
    redoc_url=None,
)
api.openapi = partial(describe, api)  # type: ignore[method-assign]


def _error_response(
    code: int, message: str, log_id: str | None = None, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    log_fields = {"logId": log_id} if log_id else {}
    envelope = Envelope(errorCode=code, errorMsg=message, **log_fields)
    return JSONResponse(envelope.model_dump(), status_code=code, headers=dict(headers or {}))


@api.exception_handler(HTTPException)
async def answer_http_error(request: Request, error: HTTPException) -> JSONResponse:
    """Answer an unknown path, or a method that the path does not have."""
    message = f"{error.detail}: {request.method} {request.url.path}; POST {PATH} labels an image, /docs describes it"
    return _error_response(error.status_code, message, headers=error.headers)


@api.exception_handler(Exception)
async def answer_failure(request: Request, error: Exception) -> JSONResponse:
    """Answer what nobody foresaw. Ray logs the error; a client gets no details."""
    return _error_response(500, "Internal server error")


@api.get("/docs", include_in_schema=False)
async def docs() -> HTMLResponse:
    return HTMLResponse(render_page(describe(api)))


def _annotate_base64(image: np.ndarray, labels: list[Chip]) -> str:
    return base64.b64encode(annotate(image, labels)).decode()


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
        self.is_stopping = False
        self.model = open_model(config.model)
        self.claim = claim_device(parse_device(config.device), workers_per_device=1)
        self.thresholds = config.threshold.resolve(self.model.vocabulary, self.model.thresholds).values
        self.label_map = config.map.resolve(self.model.vocabulary)
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
        self.fetchers = ThreadPoolExecutor(config.max_fetches, thread_name_prefix="fetch")
        self.readers = ThreadPoolExecutor(max(MIN_READERS, threads), thread_name_prefix="read")
        self.scorer = ThreadPoolExecutor(1, thread_name_prefix="score")  # an engine is used by one thread at a time
        self.bodies = Slots(config.max_ongoing + config.max_queued, 0, BUSY)
        self.memory = Memory(config.max_ongoing * config.max_body_bytes)
        self.fetches = Slots(config.max_fetches, config.max_fetches, BUSY_FETCHING)
        self.work = Slots(config.max_ongoing, config.max_queued, BUSY)
        self.score.set_max_batch_size(config.batch_size)
        self.score.set_batch_wait_timeout_s(config.batch_wait_ms / 1000)

    @api.get(
        "/health",
        response_model=Envelope,
        response_description="it is ready",
        responses={503: {"model": Envelope, "description": STOPPING}},
    )
    async def health(self) -> Any:
        """Answer that the service is ready."""
        if self.is_stopping:
            return _error_response(503, STOPPING)
        return Envelope(errorMsg="Healthy")

    async def stop_accepting(self) -> None:
        """Refuse the requests that come from now on. Those under way are answered."""
        self.is_stopping = True

    @api.post(
        PATH,
        response_model=InferResponse,
        response_model_exclude_none=True,
        response_description="labels, best first",
        responses={code: {"model": Envelope, "description": meaning} for code, meaning in ERRORS.items()},
        openapi_extra=OPERATION,
    )
    async def infer(self, request: Request) -> Any:
        """Label one image."""
        log_id = None
        try:
            if self.is_stopping:
                raise RequestError(503, STOPPING)
            self._check_token(request)
            with self.memory.hold() as take:
                async with self.bodies.hold():
                    body = await read_body(request.stream(), self.config.max_body_bytes, self.config.timeout_s, take)
                parsed = parse_request(request, body)
                log_id = parsed.options.logId
                return await self._label(parsed)
        except RequestError as error:
            return _error_response(error.code, str(error), log_id)
        except FullError as error:
            return _error_response(503, str(error), log_id, {"Retry-After": "1"})
        except ImageError as error:
            return _error_response(HTTP_STATUS.get(error.status, 422), f"{error.status}: {error}", log_id)

    async def _label(self, request: LabelRequest) -> Response:
        """Answer a valid request.

        Raises:
            RequestError: the threshold or the image's encoding is wrong.
            FullError: there is no place to work or to wait in.
            ImageError: the image cannot be read or scored.
        """
        options = request.options
        thresholds = self._thresholds(options)
        image_bytes = await self._fetch(request.url) if request.url else None
        async with self.work.hold():
            loop = asyncio.get_running_loop()
            image, pixels = await loop.run_in_executor(self.readers, self._prepare, request, image_bytes)
            scores: np.ndarray = await self.score(pixels)
            (labels,) = select_chips(scores[None], thresholds, self.label_map.names, self.label_map.groups)
            if labels is None:
                raise ImageError(Status.ENGINE, "the engine gave scores that are not finite")
            labels = labels[: options.inferenceParams.topK if options.inferenceParams else None]
            annotated = None
            if self.config.visualize if options.visualize is None else options.visualize:
                annotated = await loop.run_in_executor(self.readers, _annotate_base64, image, labels)
        categories = [Category(id=label.class_id, name=label.name, score=label.score) for label in labels]
        log_fields = {"logId": options.logId} if options.logId else {}
        response = InferResponse(result=InferResult(categories=categories, image=annotated), **log_fields)
        return Response(response.model_dump_json(exclude_none=True), media_type="application/json")

    async def _fetch(self, url: str) -> bytes:
        """Fetch an image. Waiting for a free place counts as part of the time that a download may take.

        Raises:
            FullError: too many images are being fetched.
            ImageError: it cannot be fetched.
        """

        async def fetch() -> bytes:
            async with self.fetches.hold():
                loop = asyncio.get_running_loop()
                return (await loop.run_in_executor(self.fetchers, self.fetcher.fetch_once, url)).image_bytes

        try:
            return await asyncio.wait_for(fetch(), self.config.timeout_s)
        except asyncio.TimeoutError:
            raise ImageError(Status.TIMEOUT, f"not complete after {self.config.timeout_s:g} s") from None

    @serve.batch(max_batch_size=8, batch_wait_timeout_s=0.002)
    async def score(self, pixels: list[np.ndarray]) -> list[np.ndarray]:
        """Score the pixels, uint8 [H, W, 3], of several requests in one batch: float32 [C] for each."""
        return list(await asyncio.get_running_loop().run_in_executor(self.scorer, self._score_batch, pixels))

    def _score_batch(self, pixels: list[np.ndarray]) -> np.ndarray:
        return self.engine.score(np.stack(pixels))

    def _check_token(self, request: Request) -> None:
        if self.token is None:
            return
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(token.strip().encode(), self.token.encode()):
            raise RequestError(401, "send the service's token: 'Authorization: Bearer …'")

    def _thresholds(self, options: RequestOptions) -> np.ndarray:
        """Resolve the request's threshold, or else the service's own: float32 [C]."""
        threshold = options.threshold
        if threshold is None and options.inferenceParams is not None:
            threshold = options.inferenceParams.threshold
        if threshold is None:
            return self.thresholds
        try:
            return parse_thresholds(threshold).resolve(self.model.vocabulary, self.model.thresholds).values
        except UsageError as error:
            raise RequestError(422, str(error)) from None

    def _prepare(self, request: LabelRequest, fetched: bytes | None) -> tuple[np.ndarray, np.ndarray]:
        """Decode an image: RGB uint8 [h, w, 3], and the model's pixels, uint8 [H, W, 3]."""
        image = decode(request.image_bytes() if fetched is None else fetched, self.config.max_pixels).image
        return image, self.model.preprocess.to_pixels(image)


def bind(
    config: ServeConfig, cpus: int, token: str | None, logging_config: Mapping[str, Any] | None = None
) -> serve.Application:
    """Build the Ray Serve application of a configuration.

    Args:
        cpus: CPUs of one machine; on CPUs its replicas share them.
        token: the bearer token that clients must send. None: none is needed.
        logging_config: what the replicas log, as Ray Serve takes it. None: as Serve itself.

    Raises:
        UsageError: the device is unknown.
    """
    device = parse_device(config.device)
    replicas = count_replicas(config)
    threads = max(1, cpus // replicas) if device.is_cpu else 1
    num_cpus = max(1, (cpus - 1) // replicas) if device.is_cpu else 1
    deployment = LabelService.options(  # type: ignore[attr-defined]
        num_replicas=replicas,
        max_ongoing_requests=2 * (config.max_ongoing + config.max_queued + config.max_fetches) + SPARE_PLACES,
        ray_actor_options={"num_cpus": num_cpus, **device.ray_options()},
        logging_config=None if logging_config is None else dict(logging_config),
        graceful_shutdown_timeout_s=config.drain_s,
        graceful_shutdown_wait_loop_s=0.2,
    )
    application: serve.Application = deployment.bind(config, threads, token)
    return application
