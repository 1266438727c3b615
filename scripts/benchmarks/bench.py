"""See scripts/bench. Everything is measured in one run, alternating; the claims are ratios, for the machine is noisy."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench_accuracy import accuracy
from bench_peers import peers
from measuring import (
    ENGINES,
    ROOT,
    Job,
    allowed,
    ceiling,
    choose_engines,
    make_images,
    make_links,
    median,
    note,
    run_job,
    table,
)

sys.path.append(str(ROOT / "scripts"))

from comparison.parity import ALIAS, MODELS, make_model

SECTIONS = ("ceilings", "job", "corpora", "growth", "accuracy", "peers")
SMALL = ("starter", ALIAS)


def ceilings(work: Path, photos: Path, models: list[str]) -> tuple[dict[str, Any], str]:
    """Decode-only and score-only rates of all cores."""
    found: dict[str, dict[str, float]] = {}
    for name in models:
        folder = str(make_model(name, work))
        found[name] = {"decode": ceiling("decode", folder, photos)}
        for engine, precision in ENGINES:
            found[name][f"{engine} {precision}"] = ceiling("score", folder, photos, engine, precision)
        note("ceilings", name, found[name])
    head = ["images/s, all cores", "decode", *(" ".join(one) for one in ENGINES)]
    return found, table(head, [[name, *rates.values()] for name, rates in found.items()])


def job(work: Path, photos: Path, base: Path, models: list[str], repeats: int) -> tuple[dict[str, Any], str]:
    """Whole jobs, each with its ceilings measured just before and after it."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name in [one for one in SMALL if one in models]:
        folder = str(make_model(name, work))
        verdict = json.loads(choose_engines(folder)[0])
        chosen = (verdict["engine"], verdict["precision"])
        found[name] = []
        for repeat in range(repeats):
            decode, score = ceiling("decode", folder, photos), ceiling("score", folder, photos, *chosen)
            done = run_job(folder, photos, base / f"job-{name}-{repeat}")
            score = (score + ceiling("score", folder, photos, *chosen)) / 2
            told = {"decode": decode, "score": score, "efficiency": done.per_s / allowed(decode, score)}
            found[name].append({**done._asdict(), **told, "batch_size": verdict["batch_size"]})
            note("job", name, found[name][-1])
    head = [
        "job",
        "engine",
        "batch",
        "decode/s",
        "score/s",
        "allowed/s",
        "job/s",
        "efficiency",
        "first image s",
        "wall s",
        "peak MB",
    ]
    rows = []
    for name, runs in found.items():
        middle = {key: median([run[key] for run in runs]) for key in runs[0] if key != "engine"}
        rows.append([
            name, runs[0]["engine"], middle["batch_size"], middle["decode"], middle["score"],
            allowed(middle["decode"], middle["score"]), middle["per_s"], middle["efficiency"], middle["first_s"],
            middle["wall_s"], middle["peak_mb"],
        ])  # fmt: skip
    return found, table(head, rows)


def corpora(work: Path, photos: Path, base: Path) -> tuple[dict[str, Any], str]:
    """The starter over small JPEGs, 12-megapixel ones, and a mix of PNG and WebP; decoding against Pillow's full decode."""
    folder = str(make_model("starter", work))
    large = make_images(base / "large", 200, (4000, 3000), distinct=20)
    mixed = make_images(base / "mixed", 600, kinds=("png", "webp"), distinct=200)
    found: dict[str, dict[str, Any]] = {}
    for name, images in {"640×480 JPEG": photos, "12-megapixel JPEG": large, "PNG and WebP": mixed}.items():
        rates = [(ceiling("decode", folder, images), ceiling("pillow", folder, images)) for _ in range(3)]
        decode, pillow = (median(column) for column in zip(*rates, strict=True))
        done = run_job(folder, images, base / f"corpus-{len(found)}")
        found[name] = {"decode": decode, "pillow": pillow, "ratio": decode / pillow, **done._asdict()}
        note("corpora", name, found[name])
    head = ["starter", "images", "decode/s", "Pillow's full decode + resize/s", "ratio", "job/s", "peak MB"]
    keys = ("rows", "decode", "pillow", "ratio", "per_s", "peak_mb")
    return found, table(head, [[name, *(one[key] for key in keys)] for name, one in found.items()])


def growth(base: Path, rows: tuple[int, ...], starter_rows: tuple[int, ...]) -> tuple[dict[str, Any], str]:
    """A cheap network over 1,000, 10,000 and 100,000 names of one small image; and the starter over the most, for its memory."""
    from tiny_network import export_tiny

    (base / "tiny").mkdir()
    export_tiny(base / "tiny", tuple(f"class {number}" for number in range(80)))
    found: dict[str, Job] = {}
    for count in rows:
        images = make_links(base / f"links-{count}", count)
        found[f"cheap network, {count:,}"] = run_job(str(base / "tiny"), images, base / f"grown-{count}")
        note("growth", count, found[f"cheap network, {count:,}"])
    for count in starter_rows:
        name, images = f"starter, {count:,}", base / f"links-{count}"
        found[name] = run_job(
            "starter", images if images.exists() else make_links(images, count), base / f"starter-{count}"
        )
        note("growth", name, found[name])
    told = {name: one._asdict() for name, one in found.items()}
    head = [
        "growth",
        "images/s",
        "wall s",
        "images more a second of wall time, since the row above",
        "peak MB of the process tree",
    ]
    lines: list[list[object]] = []
    before: Job | None = None
    for name, one in found.items():
        more = (one.rows - before.rows) / (one.wall_s - before.wall_s) if before and one.rows > before.rows else ""
        lines.append([name, one.per_s, one.wall_s, more, one.peak_mb])
        before = one
    return told, table(head, lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, help="these sections; default: all but peers")
    parser.add_argument("--peers", action="store_true", help="PaddleX and a plain Ray Data script too")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--images-of-large", type=int, default=300, help="for the peers' larger models")
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 10_000, 100_000], help="of the growth section")
    parser.add_argument(
        "--starter-rows", type=int, nargs="+", default=[10_000, 100_000], help="the same, of the starter"
    )
    parser.add_argument("--repeats", type=int, default=3)
    told = parser.parse_args()
    chosen = set(told.only or SECTIONS[:-1]) | ({"peers"} if told.peers else set())
    work = ROOT / "results/parity"
    work.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {}
    markdown: list[str] = []
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as temporary:
        base = Path(temporary)
        photos = make_images(base / "photos", told.images)
        steps = {
            "ceilings": lambda: ceilings(work, photos, told.models),
            "job": lambda: job(work, photos, base, told.models, told.repeats),
            "corpora": lambda: corpora(work, photos, base),
            "growth": lambda: growth(base, tuple(told.rows), tuple(told.starter_rows)),
            "accuracy": lambda: accuracy(base),
            "peers": lambda: peers(work, photos, base, told.models, told.images_of_large, told.repeats),
        }
        for name in SECTIONS:
            if name in chosen:
                results[name], shown = steps[name]()
                markdown.append(shown)
                print(shown, flush=True)
                (ROOT / "results/bench.json").write_text(json.dumps(results, indent=1))
                (ROOT / "results/bench.md").write_text("\n".join(markdown))


if __name__ == "__main__":
    main()
