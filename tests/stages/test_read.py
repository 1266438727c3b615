"""Reading: good images become pixels, bad ones a status, and what the listing told is kept."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from mlcls_ray import schema
from mlcls_ray.config import S3Options
from mlcls_ray.images.decode import decode
from mlcls_ray.images.preprocess import Preprocess
from mlcls_ray.stages.read import ReadImages, ReadOptions
from tests.conftest import BAD_IN_FOLDER

PREPROCESS = Preprocess(size=(32, 24), backend="pil", interpolation="BILINEAR")
TIME = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=timezone.utc)


def options(**changes: object) -> ReadOptions:
    values = {
        "preprocess": PREPROCESS,
        "s3": S3Options(),
        "max_bytes": 10**6,
        "max_pixels": 10**6,
        "timeout_s": 5.0,
        "attempts": 1,
        "threads": 4,
        "rows": 100,
        "annotate": 0,
    }
    return ReadOptions(**{**values, **changes})  # type: ignore[arg-type]


def manifest(uris: list[str], **columns: list[object]) -> pa.Table:
    rows = len(uris)
    values = {
        "row_id": range(rows),
        "uri": uris,
        "size_bytes": [None] * rows,
        "mtime": [None] * rows,
        "etag": [None] * rows,
        "attempts": [0] * rows,
    }
    return pa.table({**values, **columns}, schema=schema.MANIFEST)


def test_good_and_bad_images(folder_of_images: Path) -> None:
    uris = [str(folder_of_images / name) for name in (*BAD_IN_FOLDER, "a/01.jpg")]
    batch = ReadImages(options())(manifest(uris))
    assert batch["status"].tolist() == [*BAD_IN_FOLDER.values(), "ok"]
    assert all(batch["error_message"][:-1])
    assert batch["error_message"][-1] == ""
    assert not batch["pixels"][:-1].any()
    data = (folder_of_images / "a/01.jpg").read_bytes()
    assert np.array_equal(batch["pixels"][-1], PREPROCESS.to_pixels(decode(data).image))
    assert (batch["width"][-1], batch["height"][-1], batch["format"][-1]) == (64, 48, "jpeg")
    assert batch["size_bytes"].tolist()[-1] == len(data)
    assert len(batch["content_hash"][-1]) == 32
    assert {len(column) for column in batch.values()} == {6}


def test_the_listing_is_kept_where_reading_tells_nothing() -> None:
    batch = ReadImages(options())(manifest(["/none.jpg"], size_bytes=[7], mtime=[TIME], etag=["e"]))
    assert (batch["size_bytes"][0], batch["etag"][0]) == (7, "e")
    assert batch["mtime"][0] == np.datetime64(TIME.replace(tzinfo=None), "us")
    unknown = ReadImages(options())(manifest(["/none.jpg"]))
    assert unknown["size_bytes"][0] == -1
    assert np.isnat(unknown["mtime"][0])


def test_limits(folder_of_images: Path) -> None:
    uri = [str(folder_of_images / "a/01.jpg")]
    assert ReadImages(options(max_pixels=10))(manifest(uri))["status"][0] == "too_large"
    assert ReadImages(options(max_bytes=10))(manifest(uri))["status"][0] == "too_large"


def test_an_unforeseen_error_is_a_row_too(folder_of_images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Preprocess, image: np.ndarray) -> np.ndarray:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Preprocess, "to_pixels", broken)
    batch = ReadImages(options())(manifest([str(folder_of_images / "a/01.jpg")]))
    assert (batch["status"][0], batch["error_message"][0]) == ("corrupt", "RuntimeError: a bug")


@pytest.mark.parametrize(("rows", "count"), [(100, 0), (100, 7), (100, 100), (100, 1000), (7, 3), (1, 1)])
def test_a_sample_has_its_size_and_is_spread(rows: int, count: int) -> None:
    chosen = ReadImages(options(rows=rows, annotate=count))._is_annotated(np.arange(rows))
    assert chosen.sum() == min(count, rows)
    if 1 < count < rows:
        gaps = np.diff(np.flatnonzero(chosen))
        assert gaps.max() - gaps.min() <= 1


def test_bytes_are_kept_for_the_sample_only(folder_of_images: Path) -> None:
    uris = [str(folder_of_images / f"a/0{number}.jpg") for number in (1, 3, 5, 7)]
    batch = ReadImages(options(rows=4, annotate=2))(manifest(uris))
    assert [bool(data) for data in batch["image_bytes"]] == [False, True, False, True]
