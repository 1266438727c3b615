"""The results of `predict`: one for each image or page."""

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
from mlcls_ray.storage.uris import without_query
from mlcls_ray.terminal import plain

UNNAMED = "image"
"""The file stem of inputs without a path."""


class FileStems:
    """File stems for the results of one pipeline: the input's own stem, followed by a hash where two inputs share one."""

    def __init__(self) -> None:
        self._taken: dict[str, str] = {}
        self._unnamed = 0

    def stem(self, path: str | None, page: int | None) -> str:
        """Return a stem that no other input of this pipeline has; the same path and page get the same stem again."""
        if path is None:
            self._unnamed += 1
            base, key = f"{UNNAMED}-{self._unnamed:06d}", f"{self._unnamed}"
        else:
            base, key = Path(without_query(path)).stem or UNNAMED, path
        suffix = "" if page is None else f"_{page}"
        if self._taken.setdefault(base.casefold() + suffix, key) != key:
            base += "-" + blake2b(key.encode("utf-8", "surrogateescape"), digest_size=6).hexdigest()
        return base + suffix


class Result(Mapping[str, Any]):
    """The labels of one image, as a mapping with PaddleX's keys.

    `img_path` and `input_path`: str, or None for an input without a path. `page_index`: int for a page of a document, else None.
    `input_img`: RGB uint8 [H, W, 3], None if the input could not be read. `class_ids`: list of int, best first. `scores`: list of float,
    5 decimals. `label_names`: list of str. `error`: str with the reason if the input could not be labeled, else None.
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
        """The result as it is printed and saved: without the image; `page_index` and `error` only if there is one."""
        labels = {name: self[name] for name in ("img_path", "class_ids", "scores", "label_names")}
        page = {} if self["page_index"] is None else {"page_index": self["page_index"]}
        return labels | page | ({} if self.error is None else {"error": self["error"]})

    @property
    def img(self) -> Image.Image:
        """Draw the labels under the image.

        Raises:
            RunError: the input could not be read.
        """
        if self["input_img"] is None:
            raise RunError(f"'{self['img_path']}' has no image: {self['error']}")
        return draw(self["input_img"], self._labels)

    def print(self, format_json: bool = False, indent: int = 4, ensure_ascii: bool = False) -> None:
        """Print the result to standard output: on one line, or as indented JSON."""
        text = json.dumps(self.json, indent=indent, ensure_ascii=ensure_ascii) if format_json else str(self.json)
        print(plain(text, keep_lines=True))

    def save_to_json(self, save_path: str | Path, indent: int = 4, ensure_ascii: bool = False) -> str:
        """Write JSON to `save_path`, a file that ends in `.json` or a folder (named after the input there). Return the file's path."""
        text = json.dumps(self.json, indent=indent, ensure_ascii=ensure_ascii) + "\n"
        return self._write(save_path, ".json", text.encode("utf-8", "surrogateescape"))

    def save_to_img(self, save_path: str | Path) -> str | None:
        """Write the annotated image to `save_path`, an image file or a folder (named after the input there). Return the file's path.

        Returns None, and writes nothing, for an input that could not be read. The input itself is never replaced.
        """
        if self["input_img"] is None:
            return None
        file_name = Path(save_path).name
        suffixes = [os.path.splitext(name)[1] for name in (file_name, str(self["img_path"] or ""))]
        suffix = next((suffix for suffix in suffixes if _can_write(suffix)), ".png")
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


def _can_write(suffix: str) -> bool:
    """Tell whether Pillow writes images with this suffix."""
    media_type = mimetypes.guess_type(f"image{suffix}")[0] or ""
    return media_type.startswith("image/") and _format(suffix) in Image.SAVE


def _format(suffix: str) -> str:
    """Return Pillow's name of the format with this suffix; empty if it does not know the suffix."""
    return Image.registered_extensions().get(suffix.lower(), "")
