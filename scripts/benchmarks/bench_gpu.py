"""See scripts/bench --gpu. What a card allows, what the job makes of it, and whether it gives the CPU's labels.

Each number is printed, and written to OUT/gpu.json, as soon as it is measured. What there is no time for is left out, and said. With
`--device cpu` every line runs on CPUs, to try the script on a machine without a card.

Without network, prepare here: its packages (`EXTRA="psutil nvidia-ml-py" ../shared/gpu/pack`); a model cache with the converted
graphs (`MLCLS_HOME=.gpu/home mlcls label` over some images with `--engine onnxruntime`); where official weights cannot be had, models
with random ones (`mlcls export NAME --random-weights --out .gpu/NAME`). There: `. .gpu/unpack`, `export MLCLS_HOME=.gpu/home`, this file.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
from measuring import CORES, PYTHON, ROOT, ceiling, make_images, note, run_job, table

from mlcls_ray.models.cache import open_model

MODELS = ("starter", "PP-LCNet_x1_0_ML", "PP-HGNetV2-B4_ML", "ResNet50_ML", "CLIP_vit_base_patch16_448_ML")
PRECISIONS = {"gpu": ("fp16", "tf32", "fp32"), "cpu": ("fp32",)}
"""The fastest first."""
BATCHES = (64, 256)
FOLDER = Path(__file__).parent
SPARE_S = 20.0
"""Seconds for the last lines."""


class Results:
    """What was measured, kept in a file from the first number on."""

    def __init__(self, path: Path, seconds: float) -> None:
        self.path, self.values = path, dict[str, Any]()
        self.ends_at = time.monotonic() + seconds
        path.parent.mkdir(parents=True, exist_ok=True)

    def add(self, name: str, value: Any) -> None:
        self.values[name] = value
        self.path.write_text(json.dumps(self.values, indent=1) + "\n", encoding="utf-8")
        print(name, json.dumps(value), flush=True)

    def has_time(self, name: str, seconds: float) -> bool:
        """Tell whether there is time for a step that takes so long; if not, say that it is left out."""
        if time.monotonic() + seconds + SPARE_S < self.ends_at:
            return True
        note(f"no time for {name}")
        self.values.setdefault("left_out", []).append(name)
        return False


class CardWatch:
    """Asks nvidia-smi twice a second how busy the card is, and how much of its memory is in use."""

    def __init__(self, index: int, is_there: bool) -> None:
        query = "--query-gpu=utilization.gpu,memory.used"
        command = ["nvidia-smi", f"--id={index}", query, "--format=csv,noheader,nounits", "--loop-ms=500"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True) if is_there else None
        self.busy: list[float] = []
        self.memory_mb = self.store_mb = 0.0
        self.stop = threading.Event()
        self.threads = [threading.Thread(target=self._watch_store, daemon=True)]
        if self.process:
            self.threads.append(threading.Thread(target=self._watch_card, daemon=True))
        for thread in self.threads:
            thread.start()

    def _watch_card(self) -> None:
        assert self.process and self.process.stdout
        for line in self.process.stdout:
            busy, memory = (float(word) for word in line.split(","))
            self.busy.append(busy)
            self.memory_mb = max(self.memory_mb, memory)

    def _watch_store(self) -> None:
        """Ray's object store lies in /dev/shm."""
        while not self.stop.wait(0.5):
            self.store_mb = max(self.store_mb, psutil.disk_usage("/dev/shm").used / 1e6)

    def end(self) -> dict[str, float]:
        self.stop.set()
        if self.process:
            self.process.terminate()
        for thread in self.threads:
            thread.join(10)
        # The middle of the busiest half of the time: the start of the workers is not the job's rate.
        busiest = sorted(self.busy)[len(self.busy) // 2 :]
        busy = {"card_busy_percent": round(statistics.median(busiest), 1)} if busiest else {}
        return {**busy, "card_memory_mb": self.memory_mb, "object_store_mb": round(self.store_mb)}


def link_images(source: Path | None, target: Path, count: int) -> Path:
    """Fill a folder with so many names for the JPEGs of a folder, or for generated ones."""
    if source is None:
        return make_images(target, count, distinct=200)
    originals = sorted(path for path in source.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    if not originals:
        raise SystemExit(f"{source} holds no JPEG")
    target.mkdir()
    copies = [target / f"{number:06d}.jpg" for number in range(min(count, len(originals)))]
    for original, copy in zip(originals, copies, strict=False):
        copy.write_bytes(original.read_bytes())
    for number in range(len(copies), count):
        os.link(copies[number % len(copies)], target / f"{number:06d}.jpg")
    return target


def measured(*words: object) -> dict[str, Any]:
    """Measure a ceiling in another process."""
    command = [PYTHON, str(FOLDER / "card_ceilings.py"), *map(str, words)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def measure_decoding(results: Results, device: str, images: Path, model: str, seconds: float) -> None:
    kind, _, index = device.partition(":")
    cpu = ceiling("decode", model, images, seconds=seconds)
    results.add("cpu_decode", {"processes": CORES, "images_per_s": round(cpu, 1)})
    if kind == "gpu" and results.has_time("card_decode", 15):
        results.add("card_decode", measured("decode", index or 0, images, seconds, model))


def measure_scoring(results: Results, device: str, model: str, precisions: Sequence[str], seconds: float) -> None:
    for precision in precisions:
        name = f"score {Path(model).name} {precision}"
        if results.has_time(name, 20):
            batches = (8,) if device == "cpu" else BATCHES
            results.add(name, measured("score", device, model, precision, seconds, *batches))


def measure_together(results: Results, device: str, images: Path, model: str, precision: str, seconds: float) -> None:
    """Measure how decoding and scoring get on with each other on the card: the job does both at once."""
    kind, _, index = device.partition(":")
    if kind == "gpu" and results.has_time("together", 25):
        results.add("together", measured("together", index or 0, images, seconds, model, precision, 64))


def decode_limit(results: Results) -> float:
    """Return what decoding allows: the card where it decodes, else the CPUs."""
    card = results.values.get("card_decode", {})
    return float(card.get("decode") or results.values["cpu_decode"]["images_per_s"])


def score_limit(results: Results, model: str) -> float:
    """Return the best rate of a model's ceilings."""
    rates = [
        value.get("images_per_s", 0.0)
        for name, value in results.values.items()
        if name.startswith(f"score {Path(model).name} ")
    ]
    return max(rates, default=0.0)


def measure_job(results: Results, device: str, images: Path, model: str, folder: Path) -> None:
    name = f"job {Path(model).name}"
    if not results.has_time(name, 35):
        return
    kind, _, index = device.partition(":")
    watch = CardWatch(int(index or 0), kind == "gpu")
    try:
        job = run_job(model, images, folder / name, "--device", device)
    finally:
        seen = watch.end()
    limits = [limit for limit in (decode_limit(results), score_limit(results, model)) if limit]
    efficiency = {"efficiency": round(job.per_s / min(limits), 3)} if len(limits) == 2 else {}
    results.add(name, {**job._asdict(), **efficiency, **seen})


def measure_plain_script(results: Results, device: str, images: Path, model: str, folder: Path) -> None:
    """Run the plain Ray Data script with the graph that the job scores with. Its start is left out, as it is of the job."""
    if not results.has_time("plain Ray Data script", 60):
        return
    from mlcls_ray.models.convert.device_graph import cached_device_graph

    opened = open_model(model)
    graph = cached_device_graph(opened, "fp16" if device.startswith("gpu") else "fp32")
    words = [
        PYTHON,
        FOLDER / "peer_ray_data_gpu.py",
        graph,
        images,
        folder / "plain",
        *opened.preprocess.input_size,
        64,
    ]
    on_cpu = ["cpu"] if device == "cpu" else []
    started = time.time()
    subprocess.run([*map(str, words), *on_cpu], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wall = time.time() - started
    rows = len(list(images.iterdir()))
    first = min(path.stat().st_mtime for path in (folder / "plain").iterdir()) - started
    rate = rows / wall
    job = results.values.get(f"job {Path(model).name}", {})
    ratio = {"job_to_script": round(job["rows"] / job["wall_s"] / rate, 2)} if job else {}
    results.add(
        f"plain Ray Data script {Path(model).name}",
        {
            "rows": rows,
            "wall_s": round(wall, 1),
            "first_file_s": round(first, 1),
            "per_s_with_start": round(rate, 1),
            **ratio,
        },
    )


def compare_labels(results: Results, device: str, images: Path, model: str, truth: Path | None, folder: Path) -> None:
    """Compare the labels of the default options, and of the exact ones, with those of a CPU in fp32."""
    runs = {
        "cpu exact": ("--device", "cpu", "--decode", "exact", "--engine", "onnxruntime", "--precision", "fp32"),
        "card": ("--device", device),
        "card exact": ("--device", device, "--decode", "exact", "--engine", "onnxruntime", "--precision", "fp32"),
    }
    tables: dict[str, dict[str, set[str]]] = {}
    for name, flags in runs.items():
        if not results.has_time(f"labels {name}", 30):
            return
        out = folder / f"labels {name}"
        run_job(model, images, out, *flags)
        tables[name] = read_labels(out)
        if truth is not None:
            command = [
                PYTHON,
                "-m",
                "mlcls_ray.cli",
                "evaluate",
                out,
                "--data",
                truth,
                "--save",
                folder / f"{name} eval",
            ]
            done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
            results.add(f"mAP {name}", " ".join(done.stdout.split()[:12]) or done.stderr[-300:])
    expected = tables["cpu exact"]
    labels = sum(map(len, expected.values()))
    for name in ("card", "card exact"):
        changed = [len(expected[uri] ^ tables[name][uri]) for uri in expected]
        results.add(
            f"labels {name}",
            {
                "images": len(expected),
                "images_with_other_labels": sum(map(bool, changed)),
                "labels_changed_per_1000": round(1000 * sum(changed) / max(labels, 1), 1),
            },
        )


def read_labels(out: Path) -> dict[str, set[str]]:
    import pyarrow.parquet as pq

    rows = pq.read_table(out / "runs/r/labels", columns=["uri", "labels"]).to_pylist()
    return {row["uri"]: set(row["labels"] or ()) for row in rows}


def as_markdown(results: Results, models: Sequence[str]) -> str:
    rows = []
    for model in models:
        job = results.values.get(f"job {Path(model).name}")
        if job:
            words = (job.get("efficiency", "–"), job.get("card_busy_percent", "–"), job["first_s"], job["peak_mb"])
            rows.append(
                (model, job["engine"], job["per_s"], score_limit(results, model) or "–", *words, job["card_memory_mb"])
            )
    head = (
        "model",
        "engine",
        "job, images/s",
        "score alone",
        "÷ min(ceilings)",
        "card busy, %",
        "first image, s",
        "host, MB",
        "card, MB",
    )
    return table(head, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "folder", nargs="?", type=Path, help="JPEGs, searched recursively; default: generated ones of 640x480"
    )
    parser.add_argument("--device", default="gpu:0")
    parser.add_argument(
        "--models", nargs="+", default=MODELS, help="names, or folders of models; the first is compared with others"
    )
    parser.add_argument("--images", type=int, default=20_000, help="names in the corpus")
    parser.add_argument(
        "--labels", type=Path, help="folder whose labels are compared; default: 500 images of the corpus"
    )
    parser.add_argument("--truth", type=Path, help="the truth of --labels, as `mlcls evaluate --data` takes it")
    parser.add_argument("--seconds", type=float, default=235.0, help="time for all; what does not fit is left out")
    parser.add_argument("--ceiling-seconds", type=float, default=2.0, help="time for one ceiling")
    parser.add_argument("--out", type=Path, default=ROOT / "results")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as temporary:
        folder, models = Path(temporary), tuple(arguments.models)
        images = link_images(arguments.folder, folder / "images", arguments.images)
        compared = arguments.labels or link_images(images, folder / "compared", min(500, arguments.images))
        results = Results(arguments.out / "gpu.json", arguments.seconds)
        results.add(
            "machine",
            {"cores": CORES, "memory_gb": round(psutil.virtual_memory().total / 1e9), "device": arguments.device},
        )
        device, first, seconds = arguments.device, models[0], arguments.ceiling_seconds
        fastest, *others = PRECISIONS[device.partition(":")[0]]
        measure_decoding(results, device, images, first, seconds)
        measure_scoring(results, device, first, [fastest], seconds)
        measure_together(results, device, images, first, fastest, seconds)
        measure_job(results, device, images, first, folder)
        compare_labels(results, device, compared, first, arguments.truth, folder)
        measure_plain_script(results, device, images, first, folder)
        for model in models[1:]:
            measure_scoring(results, device, model, [fastest], seconds)
            measure_job(results, device, images, model, folder)
        for model in models:
            measure_scoring(results, device, model, others, seconds)
        text = as_markdown(results, models)
        (arguments.out / "gpu.md").write_text(text, encoding="utf-8")
        print(text)


if __name__ == "__main__":
    main()
