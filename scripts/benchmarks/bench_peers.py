"""Ours, PaddleX and a plain Ray Data script on the same images and models, alternating, medians. See scripts/bench."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from measuring import PYTHON, ROOT, allowed, ceiling, choose_engines, make_images, median, note, run_job, table

sys.path.append(str(ROOT / "scripts"))

from comparison.parity import ALIAS, make_model

PADDLEX = ROOT / ".venv-paddlex/bin/python"
BATCHES = (1, 4, 8, 16)
PEERS = (ALIAS, "PP-HGNetV2-B4_ML", "ResNet50_ML", "CLIP_vit_base_patch16_448_ML")


def paddlex(folder: str, images: Path, batch: int) -> float:
    """Images per second, loading not counted."""
    command = [PADDLEX, ROOT / "scripts/benchmarks/peer_paddlex.py", folder, images, str(batch)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def ray_data(folder: str, images: Path, out: Path) -> float:
    """Wall seconds."""
    began = time.perf_counter()
    command = [PYTHON, ROOT / "scripts/benchmarks/peer_ray_data.py", folder, images, out]
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


def peers(
    work: Path, photos: Path, base: Path, models: list[str], images_of_large: int, repeats: int
) -> tuple[dict[str, Any], str]:
    """PP-LCNet over all photographs and with the Ray Data script, the larger networks over some."""
    few = make_images(base / "few", images_of_large)
    trials = {True: make_images(base / "trial", 64), False: make_images(base / "trial-of-large", 32)}
    found = {}
    for name in [one for one in PEERS if one in models]:
        is_small = name == ALIAS
        images, folder = (photos if is_small else few), str(make_model(name, work))
        found[name] = _measure(name, folder, images, trials[is_small], base, repeats, is_small)
        (ROOT / "results" / f"peers-{name}.json").write_text(json.dumps(found[name], indent=1))
    return found, "\n".join(_shown(one) for one in found.values())


def _measure(
    name: str, folder: str, images: Path, trial: Path, base: Path, repeats: int, with_script: bool
) -> dict[str, Any]:
    rates = {batch: paddlex(folder, trial, batch) for batch in BATCHES}
    best = max(rates, key=lambda batch: rates[batch])
    verdicts = [json.loads(line) for line in choose_engines(folder)]
    auto, fp32 = ((one["engine"], one["precision"]) for one in verdicts)
    found: dict[str, list[Any]] = {"auto": [], "fp32": [], "paddlex": [], "ray_data_s": []}
    for repeat in range(repeats):
        out = base / f"{name}-{repeat}"
        found["paddlex"].append(paddlex(folder, images, best))
        found["auto"].append(run_job(folder, images, out / "auto")._asdict())
        if auto != fp32:
            found["fp32"].append(run_job(folder, images, out / "fp32", "--precision", "fp32")._asdict())
        if with_script:
            found["ray_data_s"].append(ray_data(folder, images, out / "script"))
        note(name, repeat, {key: values[-1] for key, values in found.items() if values})
    decode = ceiling("decode", folder, images)
    score = ceiling("score", folder, images, *found["auto"][0]["engine"].split())
    return {
        "model": name,
        "paddlex_batch": best,
        "paddlex_trial": rates,
        "verdicts": verdicts,
        "decode_per_s": decode,
        "score_per_s": score,
        "allowed_per_s": allowed(decode, score),
        **found,
    }


def _shown(result: dict[str, Any]) -> str:
    peer = median(result["paddlex"])
    rows: list[list[object]] = [[f"PaddleX 3.7.2, batch {result['paddlex_batch']}", peer, 1.0, "", ""]]
    script = median(result["ray_data_s"]) if result["ray_data_s"] else None
    for asked in [one for one in ("auto", "fp32") if result[one]]:
        per_s, wall = (median([one[key] for one in result[asked]]) for key in ("per_s", "wall_s"))
        engine = result[asked][0]["engine"]
        rows.append([f"job, {asked} ({engine})", per_s, per_s / peer, wall, script / wall if script else ""])
    if script:
        rows.append(["plain Ray Data script", "", "", script, 1.0])
    rows.append(["what decode and score allow (auto)", result["allowed_per_s"], result["allowed_per_s"] / peer, "", ""])
    return table([result["model"], "images/s", "÷ PaddleX", "wall s", "script's wall ÷"], rows)
