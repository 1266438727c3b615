"""Score: fixed batches, error rows left out, a poisoned batch bisected, one struct column for each model."""

from __future__ import annotations

import numpy as np
import pytest

from mlcls_ray.errors import DeviceLostError
from mlcls_ray.images.preprocess import Preprocess
from mlcls_ray.stages.score import Score, Scorer, Scores, from_struct
from mlcls_ray.stages.spec import ModelSpec, RunSpec, model_column, pixels_column
from tests.engines.device_pixels import HostPixels
from tests.stages.specs import PREPROCESS, model_spec, run_spec

POISON, NOT_A_NUMBER = 13, 14


class RecordingEngine:
    """Scores an image by its first pixel; refuses a batch that holds POISON."""

    name, precision = "recording", "fp32"

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def warm_up(self, batch_size: int) -> None:
        self.sizes.append(-batch_size)

    def score(self, pixels: np.ndarray) -> np.ndarray:
        self.sizes.append(len(pixels))
        first = pixels[:, 0, 0, 0]
        if (first == POISON).any():
            raise RuntimeError("poisoned")
        scores = np.repeat(first[:, None] / np.float32(255), 3, axis=1)
        scores[first == NOT_A_NUMBER] = np.nan
        return scores


def column(*values: object) -> np.ndarray:
    return np.array(values, dtype=object)


def pixels_of(values: list[int]) -> np.ndarray:
    pixels = np.zeros((len(values), 4, 4, 3), np.uint8)
    pixels[:, 0, 0, 0] = values
    return pixels


def scored(scorer: Scorer, values: list[int], bad: tuple[int, ...] = ()) -> Scores:
    status = column(*("corrupt" if number in bad else "ok" for number in range(len(values))))
    return scorer.score(pixels_of(values), status, column(*[""] * len(values)))


def test_scores_land_in_their_rows() -> None:
    engine = RecordingEngine()
    scores = scored(Scorer(engine, 3, batch_size=2), [10, 20, 30, 40, 50], bad=(1,))
    assert engine.sizes == [-2, 2, 2]
    assert np.allclose(scores.scores[:, 0] * 255, [10, 0, 30, 40, 50])
    assert scores.scores.dtype == np.float32


def test_one_poisoned_image_costs_itself_only() -> None:
    values, status = [1, 2, POISON, 4, 5, 6, NOT_A_NUMBER, 8], column(*["ok"] * 8)
    scores = Scorer(RecordingEngine(), 3, batch_size=8).score(pixels_of(values), status, column(*[""] * 8))
    assert scores.status.tolist() == ["ok", "ok", "engine", "ok", "ok", "ok", "engine", "ok"]
    assert scores.error_message[2] == "RuntimeError: poisoned"
    assert np.allclose(scores.scores[:, 0] * 255, [1, 2, 0, 4, 5, 6, 0, 8])
    assert status.tolist() == ["ok"] * 8, "the input is not touched"


class SmallEngine(RecordingEngine):
    """A device whose memory takes two images."""

    def score(self, pixels: np.ndarray) -> np.ndarray:
        if len(pixels) > 2:
            self.sizes.append(len(pixels))
            raise RuntimeError("(External) Out of memory error on GPU 0")
        return super().score(pixels)


def test_out_of_memory_halves_the_batch_for_good() -> None:
    engine = SmallEngine()
    scorer = Scorer(engine, 3, batch_size=8)
    scores = scored(scorer, list(range(20, 36)))
    assert scores.status.tolist() == ["ok"] * 16
    assert np.allclose(scores.scores[:, 0] * 255, range(20, 36))
    assert engine.sizes == [-8, 8, -4, 4, -2, *[2] * 8], "each smaller batch is warmed up: an engine pads to it"
    assert scorer.batch_size == 2


class NoRoomEngine(SmallEngine):
    """A device whose memory is too small for the batch already when the engine is warmed up."""

    def warm_up(self, batch_size: int) -> None:
        super().warm_up(batch_size)
        if batch_size > 2:
            raise RuntimeError("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0")


def test_out_of_memory_at_the_start_halves_the_batch_too() -> None:
    engine = NoRoomEngine()
    scorer = Scorer(engine, 3, batch_size=16)
    assert (scorer.batch_size, engine.sizes) == (2, [-16, -8, -4, -2])
    assert scored(scorer, [1, 2, 3]).status.tolist() == ["ok"] * 3


class FullEngine(RecordingEngine):
    """A device without room for a single image."""

    def score(self, pixels: np.ndarray) -> np.ndarray:
        raise RuntimeError("BFCArena Failed to allocate memory for requested buffer of size 1024")


def test_a_device_without_room_for_one_image_is_the_images_error() -> None:
    scores = scored(Scorer(FullEngine(), 3, batch_size=4), [1, 2, 3])
    assert scores.status.tolist() == ["engine"] * 3
    assert "Failed to allocate memory" in scores.error_message[0]


class LostEngine(RecordingEngine):
    """A card that falls off the bus at its third batch."""

    def score(self, pixels: np.ndarray) -> np.ndarray:
        if len(self.sizes) >= 3:
            raise RuntimeError("CUDA failure 999: unknown error ; GPU=0 ; expr=cudaStreamSynchronize(stream)")
        return super().score(pixels)


def test_a_lost_device_is_not_the_images_error() -> None:
    scorer = Scorer(LostEngine(), 3, batch_size=2)
    scored(scorer, [1, 2, 3, 4])
    with pytest.raises(DeviceLostError, match="engine recording: CUDA failure 999"):
        scored(scorer, [5, 6])


def test_a_batch_without_a_number_is_the_devices_error() -> None:
    """A few images may overflow; when all of a batch do, the card or the graph is broken."""
    scorer = Scorer(RecordingEngine(), 3, batch_size=4)
    assert scored(scorer, [NOT_A_NUMBER] * 3).status.tolist() == ["engine"] * 3
    assert scored(scorer, [NOT_A_NUMBER] * 3 + [1]).status.tolist() == ["engine"] * 3 + ["ok"]
    with pytest.raises(DeviceLostError, match=r"\(fp32\) gives no number for any of 4 images"):
        scored(scorer, [NOT_A_NUMBER] * 4)


class DeviceEngine(RecordingEngine):
    """Takes pixels on a device, and looks at them where they are."""

    def score(self, pixels: HostPixels) -> np.ndarray:
        assert isinstance(pixels, HostPixels), "no pixel came back to the host"
        return super().score(pixels.values)


def test_pixels_on_the_device_are_scored_without_a_gather() -> None:
    """Rows that are not ok lie between the others, as zeros: they are scored with them, and their scores are dropped."""
    engine = DeviceEngine()
    scorer = Scorer(engine, 3, batch_size=4)
    values = [10, 0, 30, 0, 0, 0, 0, 0, 0, 90, 100]
    status = column(*("ok" if value else "corrupt" for value in values))
    scores = scorer.score(HostPixels(pixels_of(values)), status, column(*[""] * len(values)))
    assert scores.status.tolist() == status.tolist()
    assert np.allclose(scores.scores[:, 0] * 255, values)
    assert engine.sizes == [-4, 3, 2], "ranges from the first to the last row that is ok, of a batch at most"


def test_one_poisoned_image_on_the_device_costs_itself_only() -> None:
    values = [1, 2, POISON, 4, 5, 6, NOT_A_NUMBER, 8]
    scores = Scorer(DeviceEngine(), 3, batch_size=8).score(
        HostPixels(pixels_of(values)), column(*["ok"] * 8), column(*[""] * 8)
    )
    assert scores.status.tolist() == ["ok", "ok", "engine", "ok", "ok", "ok", "engine", "ok"]
    assert np.allclose(scores.scores[:, 0] * 255, [1, 2, 0, 4, 5, 6, 0, 8])


def test_a_batch_of_errors_does_not_reach_the_engine() -> None:
    engine = RecordingEngine()
    scored(Scorer(engine, 3, batch_size=4), [1, 2], bad=(0, 1))
    assert engine.sizes == [-4]


class RecordingScore(Score):
    """The stage with engines that need no files."""

    def make_scorer(self, model: ModelSpec, spec: RunSpec) -> Scorer:
        return Scorer(RecordingEngine(), len(model.vocabulary), model.engine.batch_size)


@pytest.mark.parametrize("sizes", [((32, 24),), ((32, 24), (32, 24)), ((32, 24), (8, 8))])
def test_each_model_gets_a_struct_column_and_the_pixels_go(sizes: tuple[tuple[int, int], ...]) -> None:
    """Two models share their pixels, or have each their own; an image that one refuses is the other's all the same."""
    preprocesses = [PREPROCESS.model_copy(update={"size": size}) for size in sizes]
    models = [model_spec(f"m{number}", preprocess) for number, preprocess in enumerate(preprocesses)]
    spec = run_spec(*models)
    values = [[10 + number, POISON if number else 20, 30] for number in range(len(spec.preprocesses))]
    batch = {
        "row_id": np.arange(3),
        "status": column("ok", "ok", "missing"),
        "error_message": column("", "", "gone"),
        **{
            pixels_column(preprocess): pixels_of(row) for preprocess, row in zip(spec.preprocesses, values, strict=True)
        },
    }
    columns = RecordingScore(spec)(batch)
    assert list(columns) == ["row_id", "status", "error_message", *(model_column(model.name) for model in models)]
    for model in models:
        scores = from_struct(columns[model_column(model.name)])
        row = values[spec.preprocesses.index(model.preprocess)]
        is_refused = POISON in row
        assert scores.status.tolist() == ["ok", "engine" if is_refused else "ok", "missing"]
        assert np.allclose(scores.scores[:, 0] * 255, [row[0], 0 if is_refused else row[1], 0])


def test_preprocessings_that_give_the_same_pixels_are_one() -> None:
    normalised = PREPROCESS.model_copy(update={"mean": (0.0, 0.0, 0.0)})
    other = Preprocess(size=(8, 8), backend="pil", interpolation="BILINEAR")
    spec = run_spec(model_spec("a"), model_spec("b", normalised), model_spec("c", other))
    assert spec.preprocesses == (PREPROCESS, other)
