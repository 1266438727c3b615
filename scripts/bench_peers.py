"""Ours, PaddleX and a plain Ray Data script on the same images and models, alternating, medians. See scripts/bench."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]
PYTHON, PADDLEX = ROOT / ".venv/bin/python", ROOT / ".venv-paddlex/bin/python"
BATCHES = (1, 4, 8, 16)
MODELS = ("PP-LCNet_x1_0_ML", "PP-HGNetV2-B4_ML", "ResNet50_ML", "CLIP_vit_base_patch16_448_ML")

CEILING = """
import sys, json
from pathlib import Path
import numpy as np, time
from mlcls_ray.engines.device import Device
from mlcls_ray.engines.selection import load_engine
from mlcls_ray.images.decode import decode
from mlcls_ray.models.cache import open_model
what, model, images, engine, precision, seconds = sys.argv[1:]
model, paths = open_model(model), sorted(Path(images).iterdir())[:300]
if what == "decode":
    data, size, enough = [path.read_bytes() for path in paths[:50]], 50, model.preprocess.enough
    work = lambda: [model.preprocess.to_pixels(decode(one, enough=enough).image) for one in data]
else:
    loaded = load_engine(engine, model, Device("cpu"), 1, precision)
    loaded.warm_up(16)
    pixels = np.stack([model.preprocess.to_pixels(decode(path.read_bytes()).image) for path in paths[:16]])
    work, size = (lambda: loaded.score(pixels)), 16
work()
print("ready", flush=True)
sys.stdin.readline()
done, began = 0, time.perf_counter()
while time.perf_counter() - began < float(seconds):
    work()
    done += size
print(done / (time.perf_counter() - began))
"""


def ceiling(what: str, model: str, images: Path, engine: str, precision: str, cores: int, seconds: float) -> float:
    """Images per second of one process a core, all at once, with nothing around it."""
    command = [PYTHON, "-c", CEILING, what, model, str(images), engine, precision, str(seconds)]
    running = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for _ in range(cores)
    ]
    for one in running:
        while one.stdout.readline().strip() != "ready":
            if one.poll() is not None:
                raise SystemExit(f"ceiling failed: {what} {model} {engine} {precision}")
    for one in running:
        one.stdin.write("\n")
        one.stdin.flush()
    return sum(float(one.communicate()[0].split()[-1]) for one in running)


def ours(model: str, images: Path, out: Path, flags: Sequence[str]) -> dict[str, object]:
    """Wall seconds with everything, and the rate between the table's first and last moment."""
    began = time.perf_counter()
    subprocess.run(
        [ROOT / ".venv/bin/mlcls", "label", images, "--out", out, "--model", model, "--run-id", "r", *flags],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wall = time.perf_counter() - began
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pq.read_table(out / "runs/r/labels", columns=["status", "labeled_at", "engine", "precision"])
    assert set(table["status"].to_pylist()) == {"ok"}
    moments = table["labeled_at"]
    first, last = pc.min(moments).as_py(), pc.max(moments).as_py()
    rows = pc.sum(pc.greater(moments, pa.scalar(first, moments.type))).as_py()
    return {
        "wall_s": wall,
        "rows": len(table),
        "per_s": rows / max((last - first).total_seconds(), 1e-9),
        "engine": f"{table['engine'][0]} {table['precision'][0]}",
    }


def paddlex(folder: Path, images: Path, batch: int) -> float:
    done = subprocess.run(
        [PADDLEX, ROOT / "scripts/peer_paddlex.py", folder, images, str(batch)],
        check=True,
        capture_output=True,
        text=True,
    )
    return float(done.stdout.split()[-1])


def ray_data(folder: Path, images: Path, out: Path) -> float:
    """Wall seconds."""
    began = time.perf_counter()
    command = [PYTHON, ROOT / "scripts/peer_ray_data.py", folder, images, out]
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--images", type=int, default=3000, help="for PP-LCNet_x1_0_ML and the starter")
    parser.add_argument("--images-of-large", type=int, default=300, help="for the others")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each ceiling")
    told = parser.parse_args()
    from bench import CORES, make_images
    from parity import folder_of

    work = ROOT / "results/parity"
    work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        base = Path(temporary)
        make_images(base / "many", told.images)
        make_images(base / "few", told.images_of_large)
        make_images(base / "trial", 64)
        for name in told.models:
            is_small = name in ("PP-LCNet_x1_0_ML", "starter")
            images = base / ("many" if is_small else "few")
            folder = folder_of(name, work)
            result = measure(name, folder, images, base, told.repeats, told.seconds, CORES, is_small)
            (ROOT / "results" / f"peers-{name}.json").write_text(json.dumps(result, indent=1))
            show(result)


def measure(
    name: str, folder: Path, images: Path, base: Path, repeats: int, seconds: float, cores: int, with_script: bool
) -> dict[str, object]:
    rates = {batch: paddlex(folder, base / "trial", batch) for batch in BATCHES}
    best = max(rates, key=lambda batch: rates[batch])
    auto = ["--engine", "auto", "--precision", "auto"]
    ours(str(folder), base / "trial", base / f"warm-{name}", [])
    subprocess.run(  # the verdict is cached per machine: it is not part of what is compared
        [PYTHON, "-c", CHOOSE, folder], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    found: dict[str, list] = {"auto": [], "fp32": [], "paddlex": [], "ray_data_s": []}
    for repeat in range(repeats):
        out = base / f"{name}-{repeat}"
        found["paddlex"].append(paddlex(folder, images, best))
        found["auto"].append(ours(str(folder), images, out / "auto", auto))
        found["fp32"].append(ours(str(folder), images, out / "fp32", ["--engine", "auto", "--precision", "fp32"]))
        if with_script:
            found["ray_data_s"].append(ray_data(folder, images, out / "script"))
        print(name, repeat, {key: values[-1] for key, values in found.items() if values}, file=sys.stderr, flush=True)
    engine, precision = str(found["auto"][0]["engine"]).split()
    decode = ceiling("decode", str(folder), images, engine, precision, cores, seconds)
    score = ceiling("score", str(folder), images, engine, precision, cores, seconds)
    return {
        "model": name,
        "paddlex_batch": best,
        "paddlex_trial": rates,
        "decode_per_s": decode,
        "score_per_s": score,
        "allowed_per_s": 1 / (1 / decode + 1 / score),
        **found,
    }


CHOOSE = """
import sys
from mlcls_ray.engines.choice import choose
from mlcls_ray.engines.device import Device
from mlcls_ray.models.cache import open_model
for precision in ("auto", "fp32"):
    choose("auto", precision, open_model(sys.argv[1]), Device("cpu"), 1, 16)
"""


def show(result: dict) -> None:
    auto = statistics.median(one["per_s"] for one in result["auto"])
    fp32 = statistics.median(one["per_s"] for one in result["fp32"])
    peer = statistics.median(result["paddlex"])
    print(f"\n{result['model']}: PaddleX (batch {result['paddlex_batch']}) {peer:.1f}/s, ", end="")
    print(f"job auto ({result['auto'][0]['engine']}) {auto:.1f}/s = {auto / peer:.2f}×, ", end="")
    print(f"job fp32 ({result['fp32'][0]['engine']}) {fp32:.1f}/s = {fp32 / peer:.2f}×")
    print(
        f"  decode {result['decode_per_s']:.0f}/s, score {result['score_per_s']:.0f}/s, allowed {result['allowed_per_s']:.1f}/s, ",
        end="",
    )
    print(f"efficiency {auto / result['allowed_per_s']:.3f}")
    if result["ray_data_s"]:
        script = statistics.median(result["ray_data_s"])
        wall = statistics.median(one["wall_s"] for one in result["auto"])
        print(f"  with start-up: Ray Data script {script:.1f} s, job {wall:.1f} s = {script / wall:.2f}×", flush=True)


if __name__ == "__main__":
    main()
