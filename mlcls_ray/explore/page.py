"""Pages of one file: templates, with everything in them. Nothing is loaded, whatever a uri or a label is called."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from mlcls_ray import __version__
from mlcls_ray.config import S3Options
from mlcls_ray.table.thumbnails import base_name, make_thumbnails


def render(template: str, s3: S3Options, uris: Iterable[str], most: int, values: Mapping[str, Any]) -> str:
    """A template filled in; `uris`: the images that it shows, of which at most `most` get a thumbnail."""
    made = make_thumbnails(s3, uris, most)
    numbers = {uri: str(number) for number, uri in enumerate(made)}
    environment = Environment(
        loader=PackageLoader("mlcls_ray.explore"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"count": _count, "height": _height, "base_name": base_name}
    return environment.get_template(template).render(
        version=__version__,
        made_at=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        thumbnails={numbers[uri]: thumbnail for uri, thumbnail in made.items()},
        numbers=numbers,
        **values,
    )


def _count(number: int) -> str:
    return f"{number:,}"


def _height(count: int, most: int) -> float:
    """Percent of a column, logarithmic: most scores are near zero, and the others are what one looks for."""
    return 100 * math.log1p(count) / math.log1p(most)
