"""The golden images: what counts as the same labels, and a worker that checks itself."""

from __future__ import annotations

import numpy as np
import pytest

from mlcls_ray.devices import Device
from mlcls_ray.engines.autotune import default_engine
from mlcls_ray.engines.golden import GOLDEN_IMAGES, check_golden, disagreement, golden_pixels
from mlcls_ray.engines.load import engine_spec, load_engine
from mlcls_ray.errors import RunError
from mlcls_ray.models.artifact import Model
from mlcls_ray.models.cache import open_model

CPU = Device("cpu")
CANDIDATES = [
    (name, precision)
    for name in ("paddle", "openvino", "onnxruntime")
    for precision in engine_spec(name).candidates["cpu"]
]


class CountingEngine:
    """Counts the images that a real engine scores."""

    name, precision = "paddle", "fp32"

    def __init__(self, model: Model) -> None:
        self.engine = load_engine("paddle", model, CPU, 1)
        self.scored = 0

    def warm_up(self, batch_size: int) -> None:
        self.engine.warm_up(batch_size)

    def score(self, pixels: np.ndarray) -> np.ndarray:
        self.scored += len(pixels)
        return self.engine.score(pixels)


def test_golden_pixels(tiny_model: Model) -> None:
    pixels = golden_pixels(tiny_model)
    assert (pixels.shape, pixels.dtype) == ((GOLDEN_IMAGES, 32, 32, 3), np.uint8)
    assert np.array_equal(golden_pixels(tiny_model, 2, 5), pixels[2:5])


def test_disagreement() -> None:
    reference = np.array([[0.2, 0.6]], np.float32)
    thresholds = np.array([0.5, 0.6], np.float32)
    assert disagreement(reference, reference.copy(), thresholds) == ""
    assert "differs by 0.05" in disagreement(reference, reference + np.float32(0.05), thresholds)
    assert "other labels on 1 of 1" in disagreement(reference, reference + np.float32(0.001), thresholds)
    shifted = reference - np.float32(0.002)
    assert disagreement(reference + np.float32(0.001), shifted, thresholds, noise=0.0005)
    assert disagreement(reference + np.float32(0.001), shifted, thresholds, noise=0.002) == "", (
        "too near to say anything"
    )
    assert "not numbers" in disagreement(reference, reference * np.nan, thresholds)
    assert "not numbers" in disagreement(reference, reference[:, :1], thresholds)


def test_a_worker_that_drifts_is_refused(tiny_model: Model) -> None:
    engine = load_engine("openvino", tiny_model, CPU, 1)
    scores = load_engine("paddle", tiny_model, CPU, 1).score(golden_pixels(tiny_model))
    thresholds = np.array(tiny_model.thresholds, np.float32)
    config = default_engine("openvino", "fp32", "").model_copy(update={"reference": tuple(map(tuple, scores))})
    check_golden(engine, tiny_model, config, 4, thresholds)
    drifted = config.model_copy(update={"reference": tuple(map(tuple, scores + np.float32(0.02)))})
    with pytest.raises(RunError, match="does not score as Paddle did where the run was planned"):
        check_golden(engine, tiny_model, drifted, 4, thresholds)
    between = scores.copy()
    between[0] += np.float32(0.002)
    shifted = config.model_copy(update={"reference": tuple(map(tuple, between))})
    with pytest.raises(RunError, match="other labels on 1 of"):  # at the thresholds that it is given, not the model's
        check_golden(engine, tiny_model, shifted, 4, scores[0] + np.float32(0.001))


def test_a_worker_checks_itself_for_a_limited_time(tiny_model: Model) -> None:
    engine = CountingEngine(tiny_model)
    scores = engine.engine.score(golden_pixels(tiny_model))
    config = default_engine("paddle", "fp32", "").model_copy(update={"reference": tuple(map(tuple, scores))})
    thresholds = np.array(tiny_model.thresholds, np.float32)
    check_golden(engine, tiny_model, config, 4, thresholds, check_s=0.1, clock=lambda: float(engine.scored))
    assert engine.scored == 4, "the first batch took more than the time for the check"
    check_golden(engine, tiny_model, config, 4, thresholds, check_s=0.1, clock=lambda: 0.0)
    assert engine.scored == 4 + GOLDEN_IMAGES
    check_golden(engine, tiny_model, default_engine("paddle", "fp32", ""), 4, thresholds)
    assert engine.scored == 4 + GOLDEN_IMAGES, "without a reference nothing is checked"


@pytest.mark.parametrize(("engine", "precision"), CANDIDATES)
def test_agreement_of_each_precision_on_trained_weights(engine: str, precision: str) -> None:
    """fp32 of every engine differs by rounding only; bf16 is coarser, which is why auto does not choose it for this model."""
    model = open_model("starter")
    pixels = golden_pixels(model)
    expected = load_engine("paddle", model, CPU, 1).score(pixels)
    actual = load_engine(engine, model, CPU, 1, precision).score(pixels)  # type: ignore[arg-type]
    assert np.abs(actual - expected).max() <= (1e-4 if precision == "fp32" else 0.1)
