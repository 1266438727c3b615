"""See scripts/bench --scale. What does not depend on the network: listing, the label-table machinery, planning, the driver's memory."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")

from measuring import make_links
from tiny_network import export_tiny

CLASSES = 80
FRAGMENT_ROWS = 18_000
"""A minute of a worker that does 300 images a second."""

LIST = """
import sys, time
from mlcls_ray.config import S3Options
from mlcls_ray.storage.inputs.listing import list_inputs
from mlcls_ray.table.manifest import write_manifest
from mlcls_ray.storage.store import Store
started = time.monotonic()
rows = write_manifest(Store(sys.argv[2]), "r", list_inputs((sys.argv[1],), S3Options(), None))
print(rows, time.monotonic() - started)
"""


def measured(code: str, *words: object) -> list[float]:
    """Run code in a process of its own; the numbers that it prints last."""
    command = [sys.executable, "-c", code, *map(str, words)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return [float(word) for word in done.stdout.split()[-4:]]


RUN = """
import resource, sys, time
from mlcls_ray.config import LabelJob
from mlcls_ray.job.check import check_job
from mlcls_ray.job.label import run_job
from null_stages import NULL_STAGES
fixed = {"model": sys.argv[3], "batch_size": 256, "engine": "paddle", "precision": "fp32"}
job = LabelJob(inputs=(sys.argv[1],), out=sys.argv[2], limit=int(sys.argv[4]) or None, **fixed)
started = time.monotonic()
(success,) = run_job(check_job(job), stages=NULL_STAGES).successes
print(success.rows, success.seconds, time.monotonic() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""

NO_OP = """
import resource, sys, time
from mlcls_ray.config import LabelJob
from mlcls_ray.job.label import label
started = time.monotonic()
result = label(LabelJob(inputs=(sys.argv[1],), out=sys.argv[2], model=sys.argv[3], engine="paddle", precision="fp32", incremental=True))
assert result.rows == 0
print(time.monotonic() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""

PLAN = """
import resource, sys, time
from mlcls_ray.table.attempts import start_attempt
from mlcls_ray.storage.store import Store
times = []
for _ in range(2):
    started = time.monotonic()
    attempt = start_attempt([Store(sys.argv[1])], "r", int(sys.argv[2]))
    times.append(time.monotonic() - started)
print(len(attempt.done), *times, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


RELABEL = """
import resource, sys, time
from mlcls_ray.config import Thresholds
from mlcls_ray.table.relabel import relabel
from mlcls_ray.storage.store import Store
started = time.monotonic()
success = relabel(Store(sys.argv[1]), Thresholds(default=0.7))
print(success.rows, time.monotonic() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def rate_of(out: Path) -> float:
    """Rows per second between the first and the last row that a run labeled."""
    import duckdb

    query = f"SELECT count(*) / date_diff('millisecond', min(labeled_at), max(labeled_at)) * 1000 FROM '{out}/runs/*/labels/*.parquet'"
    return float(duckdb.sql(query).fetchall()[0][0])


def machinery(folder: Path, images: Path, rows: int) -> dict[str, float]:
    """A job in which nothing is read and nothing is scored: manifest, Ray, rows, fragments, commit."""
    out = folder / f"out-{rows}"
    done, work_seconds, seconds, memory = measured(RUN, images, out, folder / "tiny", rows)
    return {
        "rows": done, "work_seconds": round(work_seconds, 1), "seconds": round(seconds, 1),
        "rows_per_second": round(rate_of(out)), "driver_mb": round(memory),
    }  # fmt: skip


def planning(folder: Path, rows: int) -> dict[str, float]:
    """Resume a run of which half is done: the ledger is read, once as a new attempt does, and once as the attempt after that."""
    from null_stages import label_rows

    from mlcls_ray.storage.store import Store
    from mlcls_ray.table import layout
    from mlcls_ray.table.ledger import write_fragment

    store = Store(str(folder / "planning"))
    for number in range(rows // 2 // FRAGMENT_ROWS):
        labeled = label_rows(number * FRAGMENT_ROWS, FRAGMENT_ROWS, CLASSES)
        write_fragment(store, "r", layout.fragment_name(0, number), labeled)
    done, first, second, memory = measured(PLAN, store.root, rows)
    return {
        "rows": rows,
        "done": done,
        "seconds": round(first, 1),
        "next_seconds": round(second, 1),
        "mb": round(memory),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--planning-rows", type=int, default=10_000_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as temporary:
        folder = Path(temporary)
        os.environ["PYTHONPATH"] = str(Path(__file__).parent)
        (folder / "tiny").mkdir()
        export_tiny(folder / "tiny", tuple(f"class {number}" for number in range(CLASSES)))
        images = make_links(folder / "images", arguments.rows)
        listed, seconds = measured(LIST, images, folder / "listed")[-2:]
        result: dict[str, object] = {"listing": {"rows": listed, "seconds": round(seconds, 1)}}
        result["machinery"] = [machinery(folder, images, rows) for rows in (10_000, 100_000, arguments.rows)]
        seconds, memory = measured(NO_OP, images, folder / f"out-{arguments.rows}", folder / "tiny")[-2:]
        result["incremental_no_op"] = {"rows": arguments.rows, "seconds": round(seconds, 1), "mb": round(memory)}
        rows, seconds, memory = measured(RELABEL, folder / f"out-{arguments.rows}")[-3:]
        result["relabel"] = {
            "rows": rows,
            "seconds": round(seconds, 1),
            "rows_per_second": round(rows / seconds),
            "mb": round(memory),
        }
        result["resume_planning"] = planning(folder, arguments.planning_rows)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
