"""Read the body of a request, bounded in size, time and memory: JSON in PaddleX's format, or an image file as it is."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

from pydantic import ValidationError
from starlette.requests import Request

from mlcls_ray.serve.wire import InferRequest, QueryOptions, RequestOptions
from mlcls_ray.storage.uris import HTTP

OCTETS = "application/octet-stream"
"""The media type of a body that is the image file itself. Any `image/…` does too."""
_WHITESPACE = str.maketrans("", "", " \t\r\n\v\f")


class RequestError(Exception):
    """A request cannot be answered with a result. `code` is the HTTP status."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class LabelRequest(NamedTuple):
    """One image to label: its bytes, base64 or an http(s) URL."""

    image: str | bytes
    options: RequestOptions

    @property
    def url(self) -> str | None:
        """The URL that the image is to be fetched from; None: the image came with the request."""
        if isinstance(self.image, bytes) or self.image[:8].partition("://")[0].lower() not in HTTP:
            return None
        return self.image

    def image_bytes(self) -> bytes:
        """The encoded image that came with the request.

        Raises:
            RequestError: it is not base64.
        """
        return self.image if isinstance(self.image, bytes) else _decode_base64(self.image)


async def read_body(
    chunks: AsyncIterator[bytes], limit: int, timeout_s: float, take: Callable[[int], None]
) -> bytearray:
    """Read a body, `limit` bytes at most, whatever Content-Length says. `take` is told of each chunk's bytes before it is kept.

    Raises:
        RequestError: it is too large, or did not arrive in `timeout_s`.
        FullError: `take` raises it.
    """
    body = bytearray()

    async def read_on() -> None:
        async for chunk in chunks:
            if len(body) + len(chunk) > limit:
                raise RequestError(413, f"the body is larger than {limit} bytes")
            take(len(chunk))
            body.extend(chunk)

    try:
        await asyncio.wait_for(read_on(), timeout_s)
    except asyncio.TimeoutError:
        raise RequestError(408, f"the body was not complete after {timeout_s:g} s") from None
    return body


def parse_request(request: Request, body: bytearray) -> LabelRequest:
    """Parse a body that was read.

    Raises:
        RequestError: it is not valid; the message is pydantic's list of errors in JSON, as PaddleX sends it.
    """
    media_type = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    try:
        if media_type == OCTETS or media_type.startswith("image/"):
            return LabelRequest(bytes(body), QueryOptions.model_validate(dict(request.query_params)).to_options())
        parsed = InferRequest.model_validate_json(body)
        return LabelRequest(parsed.image, parsed)
    except ValidationError as error:
        details = [{key: item[key] for key in ("type", "loc", "msg")} for item in error.errors()]
        raise RequestError(422, json.dumps(details)) from None


def _decode_base64(text: str) -> bytes:
    """Decode base64. Line breaks, as Python's `encodebytes` and `base64` without `-w0` put them in, do not count."""
    if text.startswith("data:"):
        text = text.partition(",")[2]
    for candidate in (text, text.translate(_WHITESPACE)):
        try:
            return base64.b64decode(candidate, validate=True)
        except (binascii.Error, ValueError):
            continue
    raise RequestError(422, "image: neither an http(s):// URL nor base64")
