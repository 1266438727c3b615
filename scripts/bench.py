"""See scripts/bench. Everything is measured in one run and the claims are ratios: the machine is noisy."""

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

CORES = len(os.sched_getaffinity(0))
DISTINCT = 600
BATCH = 16


def make_images(folder: Path, count: int) -> None:
    """`count` JPEGs of 640x480: DISTINCT generated ones (photograph-like spectrum, about 90 kB), the rest hard links."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(count):
        path = folder / f"{number:06d}.jpg"
        if number < DISTINCT:
            coarse = Image.fromarray(random.integers(0, 256, (15, 20, 3), dtype=np.uint8)).resize(
                (640, 480), Image.BICUBIC
            )
            grain = random.normal(0, 14, (480, 640, 3))
            image = Image.fromarray(np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8))
            image.filter(ImageFilter.GaussianBlur(0.6)).save(path, quality=88)
        else:
            os.link(folder / f"{number % DISTINCT:06d}.jpg", path)


def decode_rate(paths: list[str]) -> float:
    """Images per second of one process that reads, decodes and resizes."""
    from mlcls_ray.images.decode import decode
    from mlcls_ray.models.cache import open_model

    preprocess = open_model("starter").preprocess
    start = time.perf_counter()
    for path in paths:
        preprocess.to_pixels(decode(Path(path).read_bytes()).image)
    return len(paths) / (time.perf_counter() - start)


def score_rate(count: int) -> float:
    """Images per second of one process with one engine thread."""
    from mlcls_ray.engines.device import parse_device
    from mlcls_ray.engines.selection import load_engine
    from mlcls_ray.models.cache import open_model

    model = open_model("starter")
    engine = load_engine("paddle", model, parse_device("cpu"), 1)
    engine.warm_up(BATCH)
    width, height = model.preprocess.input_size
    pixels = np.random.default_rng(0).integers(0, 256, (BATCH, height, width, 3), dtype=np.uint8)
    start = time.perf_counter()
    for _ in range(count // BATCH):
        engine.score(pixels)
    return count // BATCH * BATCH / (time.perf_counter() - start)


def on_all_cores(function: Callable[[Any], float], argument: object) -> float:
    """The sum of the rates of one process per core, all running at once."""
    with ProcessPoolExecutor(CORES, mp_context=multiprocessing.get_context("spawn")) as pool:
        return sum(pool.map(function, [argument] * CORES))


JOB = """
import resource, sys, time
from mlcls_ray.config import LabelJob
from mlcls_ray.runs.pipeline import label
started = time.monotonic()
success = label(LabelJob(inputs=(sys.argv[1],), out=sys.argv[2], model=sys.argv[3]))
seconds = time.monotonic() - started
print(success.rows, seconds, success.seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def run_job(images: Path, out: Path, model: str) -> dict[str, float]:
    """A whole job in a process of its own: seconds with and without Ray's start, peak memory of the driver in MB."""
    done = subprocess.run(
        [sys.executable, "-c", JOB, images, out, model], check=True, stdout=subprocess.PIPE, text=True
    )
    rows, seconds, work_seconds, memory = (float(value) for value in done.stdout.split())
    return {
        "rows": rows,
        "seconds": round(seconds, 1),
        "work_seconds": round(work_seconds, 1),
        "driver_mb": round(memory),
    }


def make_links(images: Path, rows: int) -> Path:
    """A folder of `rows` names of one small image, and of another one for each 50,000: a file has at most 65,000 names on ext4."""
    images.mkdir()
    for number in range(rows):
        if number % 50_000 == 0:
            original = images / f"{number:08d}.jpg"
            Image.new("RGB", (64, 64), (90, 120, number // 50_000 % 256)).save(original)
        else:
            os.link(original, images / f"{number:08d}.jpg")
    return images


def growth(folder: Path, small: int, large: int) -> dict[str, object]:
    """Driver memory at two corpus sizes, with a network that costs nothing and one small image hard-linked."""
    from mlcls_ray.models.networks.tiny import export_tiny

    export_tiny(folder / "tiny", tuple(f"class {number}" for number in range(80)))
    results = {}
    for rows in (small, large):
        images = make_links(folder / f"links-{rows}", rows)
        results[rows] = run_job(images, folder / f"out-{rows}", str(folder / "tiny"))
    grown = results[large]["driver_mb"] - results[small]["driver_mb"]
    rate = large / results[large]["work_seconds"]
    return {"runs": results, "driver_growth_mb": grown, "rows_per_second": round(rate)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--skip-growth", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as temporary:
        folder = Path(temporary)
        make_images(folder / "photos", arguments.images)
        paths = [str(path) for path in sorted((folder / "photos").iterdir())[:DISTINCT]]
        decode = on_all_cores(decode_rate, paths)
        score = on_all_cores(score_rate, 320)
        job = run_job(folder / "photos", folder / "out", "starter")
        allowed = 1 / (1 / decode + 1 / score)
        result = {
            "cores": CORES,
            "decode_only_per_s": round(decode, 1),
            "score_only_per_s": round(score, 1),
            "allowed_per_s": round(allowed, 1),
            "job": job,
            "job_per_s": round(job["rows"] / job["work_seconds"], 1),
            "efficiency": round(job["rows"] / job["work_seconds"] / allowed, 3),
            "efficiency_with_ray_start": round(job["rows"] / job["seconds"] / allowed, 3),
        }
        if not arguments.skip_growth:
            result["growth"] = growth(folder, arguments.images, arguments.rows)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
