"""What the benchmarks share: corpora that are made on the spot, ceilings, whole jobs, and the memory of a process tree."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
from PIL import Image, ImageFilter

ROOT = Path(__file__).resolve().parents[2]
PYTHON = sys.executable
CORES = len(os.sched_getaffinity(0))
DISTINCT = 600
BATCH = 16
ENGINES = (
    ("paddle", "fp32"), ("paddle", "bf16"), ("openvino", "fp32"), ("openvino", "bf16"), ("onnxruntime", "fp32"),
)  # fmt: skip


def make_image(number: int, width: int, height: int) -> Image.Image:
    """A photograph's spectrum: large soft areas, and grain."""
    random = np.random.default_rng(number)
    coarse = Image.fromarray(random.integers(0, 256, (15, 20, 3), dtype=np.uint8)).resize(
        (width, height), Image.BICUBIC
    )
    grain = random.normal(0, 14, (height, width, 3)).astype(np.float32)
    image = Image.fromarray(np.clip(np.asarray(coarse, np.float32) + grain, 0, 255).astype(np.uint8))
    return image.filter(ImageFilter.GaussianBlur(0.6))


def make_images(
    folder: Path,
    count: int,
    size: tuple[int, int] = (640, 480),
    kinds: Sequence[str] = ("jpg",),
    distinct: int = DISTINCT,
) -> Path:
    """`count` images: `distinct` generated ones, the rest hard links to them. 640×480 JPEGs have about 90 kB."""
    folder.mkdir(parents=True)
    for number in range(count):
        kind = kinds[number % distinct % len(kinds)]
        path = folder / f"{number:06d}.{kind}"
        if number < distinct:
            make_image(number, *size).save(path, quality=88)
        else:
            os.link(folder / f"{number % distinct:06d}.{kind}", path)
    return folder


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


CEILING = """
import io, sys, time
from pathlib import Path
import numpy as np
from PIL import Image
from mlcls_ray.devices import Device
from mlcls_ray.engines.load import load_engine
from mlcls_ray.images.decode import decode
from mlcls_ray.images.resize import can_compile
from mlcls_ray.stages.decode import BUFFER_BYTES
from mlcls_ray.models.cache import open_model
what, model, images, engine, precision, seconds = sys.argv[1:]
model, paths = open_model(model), sorted(Path(images).iterdir())[:300]
to_pixels, size = model.preprocess.to_pixels, model.preprocess.input_size
if what == "score":
    loaded = load_engine(engine, model, Device("cpu"), 1, precision)
    loaded.warm_up(16)
    pixels = model.load_pixels(paths[:16])
    work, count = (lambda: loaded.score(pixels)), 16
else:
    data = [path.read_bytes() for path in paths[:50]]
    count = len(data)
    if what == "pillow":
        work = lambda: [np.asarray(Image.open(io.BytesIO(one)).convert("RGB").resize(size, Image.BILINEAR)) for one in data]
    else:
        compiled, buffer = can_compile(), np.empty(BUFFER_BYTES, np.uint8)
        min_size, out = model.preprocess.min_decode_size, np.empty(model.preprocess.pixels_shape, np.uint8)
        work = lambda: [to_pixels(decode(one, min_size=min_size, buffer=buffer).image, compiled, out) for one in data]
work()
print("ready", flush=True)
sys.stdin.readline()
rates = []
for _ in range(3):
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < float(seconds) / 3:
        work()
        done += count
    rates.append(done / (time.perf_counter() - began))
print(sorted(rates)[1])
"""


def ceiling(what: str, model: str, images: Path, engine: str = "", precision: str = "", seconds: float = 6.0) -> float:
    """Images per second of one process a core, all at once, with nothing around it; the middle one of three times.

    `what`: decode (as the job does it), pillow (full decode and resize), or score. NaN where the engine cannot do it.
    """
    command = [PYTHON, "-c", CEILING, what, model, str(images), engine, precision, str(seconds)]
    running = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for _ in range(CORES)
    ]
    for one in running:
        while one.stdout.readline().strip() != "ready":
            if one.poll() is not None:
                for other in running:
                    other.kill()
                return float("nan")
    for one in running:
        one.stdin.write("\n")
        one.stdin.flush()
    return sum(float(one.communicate()[0].split()[-1]) for one in running)


class Job(NamedTuple):
    """A whole `mlcls label`: wall seconds with everything, seconds to the first scored image, images per second between the first and
    the last moment of the table, and the largest memory of its process tree in MB (what is shared is counted once).
    """

    rows: int
    wall_s: float
    first_s: float
    per_s: float
    engine: str
    peak_mb: float


def run_job(model: str, images: Path, out: Path, *flags: str) -> Job:
    began, started = time.perf_counter(), time.time()
    command = [PYTHON, "-m", "mlcls_ray.cli", "label", images, "--out", out, "--model", model, "--run-id", "r", *flags]
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said)
        peak = _Peak(process.pid)
        if process.wait() != 0:
            said.seek(0)
            raise SystemExit(f"failed: {' '.join(map(str, command))}\n{said.read()[-2000:]}")
    wall = time.perf_counter() - began
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pq.read_table(out / "runs/r/labels", columns=["status", "labeled_at", "engine", "precision"])
    if pc.unique(table["status"]).to_pylist() != ["ok"]:
        raise SystemExit(f"not every row of {out} is ok")
    moments = table["labeled_at"]
    first, last = pc.min(moments).as_py(), pc.max(moments).as_py()
    later = pc.sum(pc.greater(moments, pa.scalar(first, moments.type))).as_py()
    return Job(
        rows=len(table),
        wall_s=round(wall, 2),
        first_s=round(first.timestamp() - started, 2),
        per_s=round(later / max((last - first).total_seconds(), 1e-9), 2),
        engine=f"{table['engine'][0]} {table['precision'][0]}",
        peak_mb=round(peak.end()),
    )


class _Peak:
    """Watches the memory of a process and all that it starts, until it is gone."""

    def __init__(self, pid: int) -> None:
        self.root = psutil.Process(pid)
        self.largest = 0.0
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def _watch(self) -> None:
        while self.root.is_running() and self.root.status() != psutil.STATUS_ZOMBIE:
            total = 0
            try:
                for one in [self.root, *self.root.children(recursive=True)]:
                    try:
                        total += one.memory_full_info().pss
                    except (psutil.Error, OSError):
                        continue
            except psutil.Error:
                return
            self.largest = max(self.largest, total / 1e6)
            time.sleep(2.0)

    def end(self) -> float:
        self.thread.join(10)
        return self.largest


def allowed(decode: float, score: float) -> float:
    """Images per second that core-seconds of decoding and of scoring allow together."""
    return 1 / (1 / decode + 1 / score)


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Markdown."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += [
        "| " + " | ".join(f"{one:.4g}" if isinstance(one, float) else str(one) for one in row) + " |" for row in rows
    ]
    return "\n".join(lines) + "\n"


def note(*words: object) -> None:
    """What is going on, on standard error."""
    print(*words, file=sys.stderr, flush=True)


CHOOSE = """
import sys
import numpy as np
from mlcls_ray.engines.autotune import TrialRequest, autotune
from mlcls_ray.devices import Device
from mlcls_ray.models.cache import open_model
model = open_model(sys.argv[1])
thresholds = np.array(model.thresholds, np.float32)
for precision in ("auto", "fp32"):
    request = TrialRequest(
        engine="auto", precision=precision, model=model, thresholds=thresholds, device=Device("cpu"), threads=1, batch_size="auto"
    )
    print(autotune(request).model_dump_json(exclude={"reference"}))
"""


def choose_engines(model: str) -> list[str]:
    """Make this machine's verdicts for one thread a worker, so that no run that is compared has to; as JSON, with the trials."""
    done = subprocess.run(
        [PYTHON, "-c", CHOOSE, model], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    return done.stdout.splitlines()
