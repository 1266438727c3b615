"""The service: one Ray Serve deployment. A request is read and decoded in a thread, scored in a batch with others, and answered.

Ray copies the class where it is decorated. So what it uses stands above it, and annotations are real types here, not strings.
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
from mlcls_ray.devices import DEVICE_KINDS, parse_device
from mlcls_ray.engines.autotune import TrialRequest, resolve_engine
from mlcls_ray.engines.load import load_engine
from mlcls_ray.errors import ImageError, Status, UsageError
from mlcls_ray.images.decode import decode
from mlcls_ray.images.draw import Chip, annotate
from mlcls_ray.job.devices import claim_device
from mlcls_ray.models.cache import open_model
from mlcls_ray.predict.pipeline import resolve_thresholds, to_chips
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
"""Of an image that could not be labeled; 424: the other server's fault. The others are 422: it is no image that can be read."""
CLIENT_SHARE = 4
"""Threads that fetch and decode, for each thread of the engine: fetching mostly waits."""

REFERENCE = "#/components/schemas/{model}"
REQUEST_SCHEMA = InferRequest.model_json_schema(ref_template=REFERENCE)
REQUEST_BODY = {name: value for name, value in REQUEST_SCHEMA.items() if name != "$defs"}
"""The request's body is read by hand, no further than its limit; so its description is given by hand too."""

api = FastAPI(
    title="mlcls_ray",
    version=__version__,
    description="Multi-label image classification in PaddleX's wire format.",
)


def _described() -> dict[str, Any]:
    if not api.openapi_schema:
        schema = get_openapi(title=api.title, version=api.version, description=api.description, routes=api.routes)
        schema["components"]["schemas"] |= REQUEST_SCHEMA["$defs"]
        api.openapi_schema = schema
    return api.openapi_schema


api.openapi = _described  # type: ignore[method-assign]


class RefusedError(Exception):
    """A request that is not answered with a result."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def _from_base64(text: str) -> bytes:
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise RefusedError(422, "image: neither an http(s):// URL nor base64") from None


def _annotated(image: np.ndarray, labels: list[Chip]) -> str:
    return base64.b64encode(annotate(image, labels)).decode()


def _refusal(code: int, reason: str, log_id: str | None) -> JSONResponse:
    named = {"logId": log_id} if log_id else {}
    return JSONResponse(Envelope(errorCode=code, errorMsg=reason, **named).model_dump(), status_code=code)


@serve.deployment
@serve.ingress(api)
class LabelService:
    """A loaded model behind two paths."""

    def __init__(self, config: ServeConfig, threads: int, token: str | None = None) -> None:
        """`threads`: of the engine. `token`: what a client must send as its bearer token; None: nothing."""
        self.config = config
        self.token = token
        self.model = open_model(config.model)
        self.card = claim_device(parse_device(config.device), workers_per_device=1)
        self.thresholds = config.threshold.resolve(self.model.vocabulary, self.model.thresholds).values
        choice = resolve_engine(
            TrialRequest(
                engine=config.engine,
                precision=config.precision,
                model=self.model,
                thresholds=self.thresholds,
                device=self.card.device,
                threads=threads,
                batch_size=config.batch_size,
            )
        )
        self.engine = load_engine(choice.engine, self.model, self.card.device, threads, choice.precision)
        for size in takewhile(lambda size: size < config.batch_size, (2**power for power in count())):
            self.engine.warm_up(size)  # as many as have come in time: batches of a service are of every size
        self.engine.warm_up(config.batch_size)
        fetch_options = FetchOptions(max_bytes=config.max_body_bytes, timeout_s=config.timeout_s, fetch_attempts=1)
        self.fetcher = Fetcher(fetch_options, is_public_only=not config.allow_private_urls)
        self.readers = ThreadPoolExecutor(CLIENT_SHARE * threads, thread_name_prefix="read")
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
            asked = await self._read_request(request)
            log_id = asked.logId
            return await self._answer(asked)
        except RefusedError as error:
            return _refusal(error.code, str(error), log_id)
        except ImageError as error:
            return _refusal(HTTP_STATUS.get(error.status, 422), f"{error.status}: {error}", log_id)

    async def _answer(self, asked: InferRequest) -> JSONResponse:
        loop = asyncio.get_running_loop()
        thresholds = self._thresholds(asked)
        image, pixels = await loop.run_in_executor(self.readers, self._read_image, asked.image)
        scores: np.ndarray = await self.score(pixels)
        (labels,) = to_chips(scores[None], thresholds, self.model.vocabulary)
        if labels is None:
            raise ImageError(Status.ENGINE, "the engine gave scores that are no numbers")
        top_k = asked.inferenceParams.topK if asked.inferenceParams else None
        labels = labels[:top_k]
        is_shown = self.config.visualize if asked.visualize is None else asked.visualize
        shown = await loop.run_in_executor(self.readers, _annotated, image, labels) if is_shown else None
        result = InferResult(
            categories=[Category(id=one.class_id, name=one.name, score=one.score) for one in labels], image=shown
        )
        named = {"logId": asked.logId} if asked.logId else {}
        return JSONResponse(InferResponse(result=result, **named).model_dump(exclude_none=True))

    @serve.batch(max_batch_size=8, batch_wait_timeout_s=0.002)
    async def score(self, pixels: list[np.ndarray]) -> list[np.ndarray]:
        """uint8 [H, W, 3] of several requests → float32 [C] for each."""
        stacked = np.stack(pixels)
        scores = await asyncio.get_running_loop().run_in_executor(self.scorer, self.engine.score, stacked)
        return list(scores)

    def _check_token(self, request: Request) -> None:
        if self.token is None:
            return
        kind, _, given = request.headers.get("Authorization", "").partition(" ")
        if kind.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), self.token.encode()):
            raise RefusedError(401, "give the service's token: 'Authorization: Bearer …'")

    async def _read_request(self, request: Request) -> InferRequest:
        """The body is read no further than the limit, whatever its header says."""
        limit = self.config.max_body_bytes
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                raise RefusedError(413, f"the body is larger than {limit} bytes")
        try:
            return InferRequest.model_validate_json(bytes(body))
        except ValidationError as error:
            told = [{key: one[key] for key in ("type", "loc", "msg")} for one in error.errors()]
            raise RefusedError(422, json.dumps(told)) from None

    def _thresholds(self, asked: InferRequest) -> np.ndarray:
        given = asked.threshold
        if given is None and asked.inferenceParams is not None:
            given = asked.inferenceParams.threshold
        if given is None:
            return self.thresholds
        try:
            return resolve_thresholds(given, self.model)
        except UsageError as error:
            raise RefusedError(422, str(error)) from None

    def _read_image(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """RGB uint8 [h, w, 3], and resized to the model's input."""
        is_url = text.partition("://")[0].lower() in HTTP
        image_bytes = self.fetcher.fetch_once(text).image_bytes if is_url else _from_base64(text)
        image = decode(image_bytes, self.config.max_pixels).image
        return image, self.model.preprocess.to_pixels(image)


def bind(config: ServeConfig, cpus: int, token: str | None) -> serve.Application:
    """The deployment for a configuration, on machines of so many CPUs.

    Raises:
        UsageError: the device is unknown.
    """
    device = parse_device(config.device)
    on_cpu = device.kind == "cpu"
    replicas = config.replicas or (1 if on_cpu else max(1, len(device.indices)))
    threads = max(1, cpus // replicas) if on_cpu else 1
    options: dict[str, Any] = {"num_cpus": max(1, (cpus - 1) // replicas) if on_cpu else 1}
    if device.resource == "GPU":
        options["num_gpus"] = 1
    elif not on_cpu:
        options["resources"] = {DEVICE_KINDS[device.kind].resource: 1}
    deployment = LabelService.options(  # type: ignore[attr-defined]
        num_replicas=replicas,
        max_ongoing_requests=config.max_ongoing,
        max_queued_requests=config.max_queued,
        ray_actor_options=options,
        graceful_shutdown_timeout_s=config.drain_s,
        graceful_shutdown_wait_loop_s=0.2,
    )
    application: serve.Application = deployment.bind(config, threads, token)
    return application
