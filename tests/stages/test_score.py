"""Scoring: fixed batches, error rows left out, a poisoned batch bisected."""

from __future__ import annotations

import numpy as np

from mlcls_ray.stages.score import ScoreImages

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


def batch(values: list[int], bad: tuple[int, ...] = ()) -> dict[str, np.ndarray]:
    pixels = np.zeros((len(values), 4, 4, 3), np.uint8)
    pixels[:, 0, 0, 0] = values
    statuses = np.array(["corrupt" if number in bad else "ok" for number in range(len(values))], dtype=object)
    return {
        "row_id": np.arange(len(values)),
        "status": statuses,
        "error_message": np.array([""] * len(values), dtype=object),
        "pixels": pixels,
    }


def test_scores_land_in_their_rows() -> None:
    engine = RecordingEngine()
    scored = ScoreImages(engine, 3, batch_size=2)(batch([10, 20, 30, 40, 50], bad=(1,)))
    assert engine.sizes == [-2, 2, 2]
    assert "pixels" not in scored
    assert np.allclose(scored["all_scores"][:, 0] * 255, [10, 0, 30, 40, 50])
    assert scored["all_scores"].dtype == np.float32


def test_one_poisoned_image_costs_itself_only() -> None:
    given = batch([1, 2, POISON, 4, 5, 6, NOT_A_NUMBER, 8])
    scored = ScoreImages(RecordingEngine(), 3, batch_size=8)(given)
    assert scored["status"].tolist() == ["ok", "ok", "engine", "ok", "ok", "ok", "engine", "ok"]
    assert scored["error_message"][2] == "RuntimeError: poisoned"
    assert np.allclose(scored["all_scores"][:, 0] * 255, [1, 2, 0, 4, 5, 6, 0, 8])
    assert given["status"].tolist() == ["ok"] * 8, "the input is not touched"


class SmallEngine(RecordingEngine):
    """A device whose memory takes two images."""

    def score(self, pixels: np.ndarray) -> np.ndarray:
        if len(pixels) > 2:
            self.sizes.append(len(pixels))
            raise RuntimeError("(External) Out of memory error on GPU 0")
        return super().score(pixels)


def test_out_of_memory_halves_the_batch_for_good() -> None:
    engine = SmallEngine()
    stage = ScoreImages(engine, 3, batch_size=8)
    scored = stage(batch(list(range(20, 36))))
    assert scored["status"].tolist() == ["ok"] * 16
    assert np.allclose(scored["all_scores"][:, 0] * 255, range(20, 36))
    assert engine.sizes == [-8, 8, 4, 2, 2, 4, 2, 2, *[2] * 4], "the second half of the first batch was cut already"
    assert stage.batch_size == 2


def test_a_batch_of_errors_does_not_reach_the_engine() -> None:
    engine = RecordingEngine()
    ScoreImages(engine, 3, batch_size=4)(batch([1, 2], bad=(0, 1)))
    assert engine.sizes == [-4]
