"""Render HTML pages that are one file each and load nothing. Names of images and labels are escaped: they may be hostile."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from mlcls_ray import __version__
from mlcls_ray.config import S3Options
from mlcls_ray.table.thumbnails import base_name, make_thumbnails


def render(template: str, s3: S3Options, uris: Iterable[str], thumbnails: int, values: Mapping[str, Any]) -> str:
    """Fill in a template. Of the images `uris` that it shows, the first `thumbnails` get a picture."""
    pictures = make_thumbnails(s3, uris, thumbnails)
    numbers = {uri: str(number) for number, uri in enumerate(pictures)}
    environment = Environment(
        loader=PackageLoader("mlcls_ray.explore"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"count": _count, "height": _height, "base_name": base_name}
    return environment.get_template(template).render(
        version=__version__,
        made_at=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        thumbnails={numbers[uri]: picture for uri, picture in pictures.items()},
        numbers=numbers,
        **values,
    )


def _count(number: int) -> str:
    return f"{number:,}"


def _height(count: int, highest: int) -> float:
    """Return the height of a column in percent, on a logarithmic scale: most scores are near zero, and the few others matter."""
    return 100 * math.log1p(count) / math.log1p(highest)
