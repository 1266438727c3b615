"""Decode: encoded images become pixels of each preprocessing, bad ones a status."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mlcls_ray.images.decode import Decoded, decode
from mlcls_ray.images.preprocess import Preprocess
from mlcls_ray.stages.decode import Decode
from mlcls_ray.stages.read import Read
from mlcls_ray.stages.spec import Batch, pixels_column
from tests.conftest import BAD_IN_FOLDER, encode, picture
from tests.stages.specs import PREPROCESS, model_spec, run_spec
from tests.stages.test_read import manifest

PIXELS = pixels_column(PREPROCESS)


def batch_of(*images: bytes) -> Batch:
    count = len(images)

    def column(*values: object) -> np.ndarray:
        array = np.empty(len(values), dtype=object)
        array[:] = values
        return array

    return {
        "row_id": np.arange(count),
        "status": column(*["ok"] * count),
        "error_message": column(*[""] * count),
        "image_bytes": column(*images),
    }


def test_good_and_bad_images(folder_of_images: Path) -> None:
    uris = [str(folder_of_images / name) for name in (*BAD_IN_FOLDER, "a/01.jpg")]
    stage = Decode(run_spec())
    batch = stage(Read(run_spec())(manifest(uris)))
    assert batch["status"].tolist() == [*BAD_IN_FOLDER.values(), "ok"]
    assert all(batch["error_message"][:-1])
    assert batch["error_message"][-1] == ""
    assert not batch[PIXELS][:-1].any()
    data = (folder_of_images / "a/01.jpg").read_bytes()
    assert np.array_equal(batch[PIXELS][-1], PREPROCESS.to_pixels(decode(data).image))
    assert (batch["width"][-1], batch["height"][-1], batch["format"][-1]) == (64, 48, "jpeg")
    assert "image_bytes" not in batch, "nobody asked for annotated images"
    assert {len(column) for column in batch.values()} == {6}
    assert stage.seconds["decode"] > 0


def test_the_limit_of_pixels() -> None:
    assert Decode(run_spec(max_pixels=10))(batch_of(encode(picture())))["status"][0] == "too_large"


@pytest.mark.parametrize(("rows", "annotate"), [(100, 7), (100, 100), (3, 10), (1, 1)])
def test_annotated_rows_are_spread_evenly_and_are_the_same_each_time(rows: int, annotate: int) -> None:
    stage = Decode(run_spec(rows=rows, annotate=annotate))
    chosen = stage.is_annotated(np.arange(rows))
    assert chosen.sum() == min(annotate, rows)
    assert np.array_equal(chosen, np.concatenate([stage.is_annotated(np.array([row])) for row in range(rows)]))
    gaps = np.diff(np.flatnonzero(chosen))
    assert gaps.size == 0 or gaps.max() - gaps.min() <= 1


def test_bytes_stay_only_where_an_image_will_be_annotated() -> None:
    images = [encode(picture(seed=seed)) for seed in range(3)]
    batch = Decode(run_spec(rows=4, annotate="all"))(batch_of(*images, b"<html>"))
    assert batch["image_bytes"].tolist() == [*images, b""]
    sample = Decode(run_spec(rows=4, annotate=1))(batch_of(*images, images[0]))
    assert [bool(image_bytes) for image_bytes in sample["image_bytes"]] == [False, False, False, True]


@pytest.mark.parametrize(("side", "expected_calls"), [(60, 1), (2000, 2)])
def test_an_image_is_decoded_once_unless_a_smaller_size_serves_one_model_only(side: int, expected_calls: int) -> None:
    image = encode(picture(side, side))
    sizes = [Preprocess(size=(size, size), backend="pil", interpolation="BILINEAR") for size in (320, 48, 320)]
    models = [model_spec(name, preprocess) for name, preprocess in zip("abc", sizes, strict=True)]
    calls: list[object] = []

    def counting(*arguments: object) -> Decoded:
        calls.append(arguments)
        return decode(*arguments)  # type: ignore[arg-type]

    batch = Decode(run_spec(*models, max_pixels=10**7), counting)(batch_of(image))
    assert len(calls) == expected_calls
    assert (batch["width"][0], batch["height"][0]) == (side, side)
    for model in models:
        alone = Decode(run_spec(model, max_pixels=10**7))(batch_of(image))
        column = pixels_column(model.preprocess)
        assert np.array_equal(batch[column], alone[column])


def test_an_error_of_any_kind_is_the_rows_own() -> None:
    def failing(image_bytes: bytes, *rest: object) -> Decoded:
        if image_bytes == b"bad":
            raise ZeroDivisionError("in a parser")
        return decode(image_bytes)

    batch = Decode(run_spec(), failing)(batch_of(encode(picture()), b"bad"))
    assert batch["status"].tolist() == ["ok", "corrupt"]
    assert batch["error_message"][1] == "ZeroDivisionError: in a parser"


@pytest.mark.parametrize(("how", "size"), [("auto", PREPROCESS.min_decode_size), ("exact", None)])
def test_the_compiled_resize_takes_over_and_changes_no_pixel(how: str, size: tuple[int, int] | None) -> None:
    """Images of several sizes, one after the other in the same memory."""
    photos = [picture(640, 480, seed=1), picture(90, 200, seed=2), picture(64, 48, seed=3).convert("L")]
    images = [*map(encode, photos), encode(picture(300, 200), "PNG"), encode(picture(641, 481, seed=4))]
    stage = Decode(run_spec(decode=how), compiled_after=1)
    batch = stage(batch_of(*images, *images))
    assert stage.images == 2 * len(images)
    assert stage.is_compiled == (how == "auto")
    for row, image_bytes in enumerate((*images, *images)):
        assert np.array_equal(batch[PIXELS][row], PREPROCESS.to_pixels(decode(image_bytes, min_size=size).image))
