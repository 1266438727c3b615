"""What `predict` gives: one result per image or page."""

from __future__ import annotations

import io
import json
import mimetypes
import os
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mlcls_ray.errors import ImageError, RunError
from mlcls_ray.images.draw import JPEG_QUALITY, Chip, draw
from mlcls_ray.storage.store import Store

SCORE_DIGITS = 5
"""Scores are rounded after the threshold was applied, as PaddleX does."""
UNNAMED = "image"
"""The stem of what has no path."""


class Names:
    """File stems for the results of one pipeline: the input's own, and a hash behind it where two inputs share one."""

    def __init__(self) -> None:
        self._taken: dict[str, str] = {}
        self._unnamed = 0

    def stem(self, path: str | None, page: int | None) -> str:
        """A stem that no other input of this pipeline has; the same input gets the same one again."""
        if path is None:
            self._unnamed += 1
            base, key = f"{UNNAMED}-{self._unnamed:06d}", f"{self._unnamed}"
        else:
            base, key = Path(path.partition("?")[0] if "://" in path else path).stem or UNNAMED, path
        suffix = "" if page is None else f"_{page}"
        if self._taken.setdefault(base.casefold() + suffix, key) != key:
            base += "-" + blake2b(key.encode("utf-8", "surrogateescape"), digest_size=6).hexdigest()
        return base + suffix


class Result(Mapping[str, Any]):
    """A mapping with PaddleX's keys: `img_path` (and `input_path`), `page_index`, `input_img` (RGB uint8 [H, W, 3]), `class_ids` (list of
    int, best first), `scores` (list of float, 5 decimals), `label_names`; with `on_error="return"` also `error`, None where all is well.
    """

    def __init__(
        self,
        path: str | None,
        page_index: int | None,
        image: np.ndarray | None,
        labels: list[Chip],
        stem: str,
        error: ImageError | None = None,
    ) -> None:
        self.error = error
        self._stem = stem
        self._labels = labels
        self._values: dict[str, Any] = {
            "img_path": path,
            "input_path": path,
            "page_index": page_index,
            "input_img": image,
            "class_ids": [label.class_id for label in labels],
            "scores": [label.score for label in labels],
            "label_names": [label.name for label in labels],
            "error": None if error is None else f"{error.status}: {error}",
        }

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return str(self.json)

    @property
    def json(self) -> dict[str, Any]:
        """What is printed and saved: without the image, and without what is not there."""
        shown = {name: self[name] for name in ("img_path", "class_ids", "scores", "label_names")}
        page = {} if self["page_index"] is None else {"page_index": self["page_index"]}
        return shown | page | ({} if self.error is None else {"error": self["error"]})

    @property
    def img(self) -> Image.Image:
        """The image with its labels drawn under it.

        Raises:
            RunError: the input could not be read.
        """
        if self["input_img"] is None:
            raise RunError(f"'{self['img_path']}' has no image: {self['error']}")
        return draw(self["input_img"], self._labels)

    def print(self, format_json: bool = False, indent: int = 4, ensure_ascii: bool = False) -> None:
        """Print the result to standard output: in one line, or as indented JSON."""
        print(json.dumps(self.json, indent=indent, ensure_ascii=ensure_ascii) if format_json else str(self.json))

    def save_to_json(self, save_path: str | Path, indent: int = 4, ensure_ascii: bool = False) -> str:
        """Write JSON to a file that ends in `.json`, or to a folder under the input's name; returns where."""
        text = json.dumps(self.json, indent=indent, ensure_ascii=ensure_ascii) + "\n"
        return self._write(save_path, ".json", text.encode("utf-8", "surrogateescape"))

    def save_to_img(self, save_path: str | Path) -> str | None:
        """Write the annotated image to an image file, or to a folder under the input's name; returns where.

        Nothing is written for an input that could not be read. The input itself is never replaced.
        """
        if self["input_img"] is None:
            return None
        given = Path(str(save_path))
        own = os.path.splitext(str(self["img_path"] or ""))[1]
        suffix = given.suffix if _is_image(given.name) else own if _is_image(f"x{own}") else ".png"
        out = io.BytesIO()
        self.img.save(out, _format(suffix), **({"quality": JPEG_QUALITY} if _format(suffix) == "JPEG" else {}))
        return self._write(save_path, suffix, out.getvalue())

    def _write(self, save_path: str | Path, suffix: str, data: bytes) -> str:
        target = Path(os.path.abspath(save_path))
        if target.suffix.lower() != suffix.lower() or target.is_dir():
            target = target / f"{self._stem}{suffix}"
        source = self["img_path"]
        if source is not None and target.exists() and os.path.exists(source) and os.path.samefile(target, source):
            target = target.with_name(f"{target.stem}_res{suffix}")
        Store(str(target.parent)).write(target.name, data)
        return str(target)


def _is_image(name: str) -> bool:
    kind = mimetypes.guess_type(name)[0] or ""
    return kind.startswith("image/") and _format(os.path.splitext(name)[1]) in Image.SAVE


def _format(suffix: str) -> str:
    """Pillow's name of the format that a suffix stands for; empty where it can write none."""
    return Image.registered_extensions().get(suffix.lower(), "")
