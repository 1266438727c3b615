"""Two checkouts against each other: whole jobs on the same images, alternating, medians and ratios. Needs a .venv in each checkout.

.venv/bin/python scripts/benchmarks/bench_versions.py BEFORE AFTER IMAGES MODEL … [--repeats 3] [--limit 3000]
"""

import argparse
import datetime
import os
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq


class Timing(NamedTuple):
    """A whole job: images per second between the first and the last labeled row, and seconds from the command to the first."""

    per_s: float
    first_s: float


def run(checkout: Path, images: Path, model: str, limit: int, words: list[str]) -> Timing:
    with tempfile.TemporaryDirectory() as out:
        command = [checkout / ".venv/bin/mlcls", "label", images, "--out", out, "--model", model, "--limit", str(limit)]
        started = datetime.datetime.now(datetime.timezone.utc)
        environment = {**os.environ, "MLCLS_HOME": f"/tmp/mlcls-bench-{checkout.name}"}
        subprocess.run([*command, *words], check=True, capture_output=True, cwd=checkout, env=environment)
        (labels,) = Path(out).glob("runs/*/labels")
        moments = sorted(pq.read_table(labels, columns=["labeled_at"]).column(0).to_pylist())
    seconds = (moments[-1] - moments[0]).total_seconds()
    return Timing(len(moments) / seconds, (moments[0] - started).total_seconds())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--limit", type=int, default=3000)
    arguments, words = parser.parse_known_args()
    print("| model | before, images/s | after | ratio | first image, s, before | after |\n|---|---|---|---|---|---|")
    for model in arguments.models:
        for checkout in (arguments.before, arguments.after):
            run(checkout, arguments.images, model, arguments.limit, words)  # engines are tried, files are read once
        pairs = [
            [
                run(checkout, arguments.images, model, arguments.limit, words)
                for checkout in (arguments.before, arguments.after)
            ]
            for _ in range(arguments.repeats)
        ]
        before, after = ([pair[side] for pair in pairs] for side in (0, 1))
        ratio = statistics.median(new.per_s / old.per_s for old, new in pairs)
        ratios = ", ".join(f"{new.per_s / old.per_s:.3f}" for old, new in pairs)
        rates = [f"{statistics.median(timing.per_s for timing in side):.1f}" for side in (before, after)]
        first = [f"{statistics.median(timing.first_s for timing in side):.1f}" for side in (before, after)]
        print(
            f"| {Path(model).name} | {rates[0]} | {rates[1]} | {ratio:.3f} ({ratios}) | {first[0]} | {first[1]} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
