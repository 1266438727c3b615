"""Libraries' loggers. Many of them write whole URLs, with passwords and signatures, at INFO and DEBUG: one line for each image."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping

LIBRARY_LEVELS: Mapping[str, int] = {
    "aiobotocore": logging.WARNING,
    "aiohttp": logging.WARNING,
    "boto3": logging.WARNING,
    "botocore": logging.WARNING,
    "fsspec": logging.WARNING,
    "httpcore": logging.WARNING,
    "httpx": logging.WARNING,
    "s3fs": logging.WARNING,
    "s3transfer": logging.WARNING,
    "urllib3": logging.ERROR,  # its warnings about requests that are sent again name their path and query
}
"""The lowest level that each may log at, whatever the root logger takes."""


@functools.cache
def hide_library_urls() -> None:
    """Keep URLs out of the logs of this process. Called before a client is made, by whoever makes one."""
    for name, level in LIBRARY_LEVELS.items():
        logger = logging.getLogger(name)
        logger.setLevel(max(level, logger.level))
