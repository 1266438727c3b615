"""A real `mlcls browse` over an output with real pictures, hostile names, and images that cannot be shown."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tests.conftest import MLCLS
from tests.explore.browse.many import random_scores, write_run

HOSTILE = "<img src=x onerror=alert(1)>&\"'.jpg"
TURNED = "\u202egpj.exe.jpg"
CLASSES = ("boat", "cat", "dog", "<b>otter</b>")
PRIVATE = "http://127.0.0.1:9/secret.jpg"
IMAGES = 150


class Server(NamedTuple):
    """A running server: the address with its token, and the port."""

    url: str
    port: int
    out: Path

    @property
    def base(self) -> str:
        return self.url.partition("/?")[0]


def write_output(folder: Path, demo: Path) -> Path:
    """150 names of the demo's pictures, and of what is none; runs `one` and `two`, of which the second has the first 30 anew."""
    images = folder / "images"
    images.mkdir()
    photos = sorted(demo.glob("*.jpg"))
    names = [f"{number:03d}.jpg" for number in range(IMAGES)]
    for number, name in enumerate(names):
        os.link(photos[number % len(photos)], images / name) if _is_same_disk(demo, folder) else (
            images / name
        ).write_bytes(photos[number % len(photos)].read_bytes())
    for name in (HOSTILE, TURNED):
        (images / name).write_bytes(photos[0].read_bytes())
    uris = [str(images / name) for name in (*names, HOSTILE, TURNED, "gone.jpg")] + [PRIVATE]
    out = folder / "out"
    vectors = np.random.default_rng(5).normal(size=(len(uris), 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = random_scores(len(uris), len(CLASSES), 1) ** 0.06
    write_run(str(out), "one", uris, classes=CLASSES, scores=scores, embeddings=vectors)
    write_run(str(out), "two", uris[:30], classes=CLASSES, scores=scores[::-1][:30].copy(), embeddings=vectors[:30])
    return out


def _is_same_disk(one: Path, other: Path) -> bool:
    return one.stat().st_dev == other.stat().st_dev


@contextlib.contextmanager
def serving(out: Path, *flags: str, temporary: Path | None = None) -> Iterator[Server]:
    process = subprocess.Popen(
        [MLCLS, "browse", str(out), "--port", "0", "--user", "ada", *flags],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **({"TMPDIR": str(temporary)} if temporary else {})},
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        match = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/\?token=[\w-]{40,}", url)
        assert match, url
        yield Server(url, int(match[1]), out)
    finally:
        process.terminate()
        assert process.wait(timeout=30) == 0
