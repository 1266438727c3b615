"""What decode and score allow, without HTTP: `serve_ceiling.py MODEL_FOLDER ENGINE PRECISION IMAGES SECONDS`.

Two threads for each CPU decode batches of eight ahead of one thread that scores them, as in a replica. Prints images a second, and core-ms
for each image.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from mlcls_ray.devices import parse_device
from mlcls_ray.engines.load import load_engine
from mlcls_ray.images.decode import decode
from mlcls_ray.models.artifact import load_model

BATCH = 8
WARM_UP_S = 3.0


def main() -> None:
    folder, engine_name, precision, images, seconds = sys.argv[1:]
    cpus = os.cpu_count() or 1
    model = load_model(Path(folder))
    engine = load_engine(engine_name, model, parse_device("cpu"), cpus, precision)  # type: ignore[arg-type]
    engine.warm_up(BATCH)
    encoded = [path.read_bytes() for path in sorted(Path(images).glob("*.jpg"))]
    readers = ThreadPoolExecutor(max(2, cpus))

    def prepare(number: int) -> np.ndarray:
        return model.preprocess.to_pixels(decode(encoded[number % len(encoded)]).image)

    waiting: deque[Future[np.ndarray]] = deque()
    began, cpu_began, count, submitted = 0.0, 0.0, 0, 0
    start = time.monotonic()
    while not began or time.monotonic() < began + float(seconds):
        while len(waiting) < 3 * BATCH:
            waiting.append(readers.submit(prepare, submitted))
            submitted += 1
        engine.score(np.stack([waiting.popleft().result() for _ in range(BATCH)]))
        count += BATCH
        if not began and time.monotonic() > start + WARM_UP_S:
            began, cpu_began, count = time.monotonic(), time.process_time(), 0
    print(count / (time.monotonic() - began), 1000 * (time.process_time() - cpu_began) / count)


if __name__ == "__main__":
    main()
