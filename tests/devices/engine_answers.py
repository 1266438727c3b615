"""Score on stand-in devices of several kinds, predict, and load where the memory is too small; print the answers as JSON.

Run by test_custom_devices.py:

python -m tests.devices.engine_answers MODEL PHOTOS KIND …
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np

from mlcls_ray.devices import Device
from mlcls_ray.engines.devices import count_devices
from mlcls_ray.engines.load import load_engine
from mlcls_ray.errors import RunError
from mlcls_ray.models.artifact import Model, load_model
from mlcls_ray.predict.pipeline import create_pipeline


def main() -> None:
    model = load_model(Path(sys.argv[1]))
    width, height = model.preprocess.input_size
    pixels = np.random.default_rng(0).integers(0, 256, (8, height, width, 3), dtype=np.uint8)
    expected = load_engine("paddle", model, Device("cpu"), 1).score(pixels)
    answers = {}
    kinds = sys.argv[3:]
    for kind in kinds:
        actual = load_engine("paddle", model, Device(kind, (1,)), 1).score(pixels)
        answers[kind] = {"devices": count_devices(Device(kind)), "difference": float(np.abs(actual - expected).max())}
    pipeline = create_pipeline(model=sys.argv[1], device=f"{kinds[0]}:1", threshold=0.0)
    predicted = [result.json for result in pipeline.predict(sys.argv[2])]
    too_small = small_memory(model, Device(kinds[0]))
    print(json.dumps({"kinds": answers, "predicted": predicted, "too_small": too_small}))


def small_memory(model: Model, device: Device) -> str:
    """The error of a model that does not fit into the device's memory. Its weights are what is there: Paddle's kernels run on the CPU."""
    os.environ["STAND_IN_BYTES"] = "10000"
    try:
        load_engine("paddle", model, device, 1)
    except RunError as error:
        return str(error)
    finally:
        del os.environ["STAND_IN_BYTES"]
    return ""


if __name__ == "__main__":
    main()
