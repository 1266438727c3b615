"""Loss and dev mAP as a picture."""

from __future__ import annotations

import json
from pathlib import Path


def draw_curves(metrics: Path, target: Path) -> None:
    """Draw a PNG from the metrics' lines; nothing where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    lines = [json.loads(line) for line in metrics.read_text("utf-8").splitlines()]
    losses = {one["epoch"]: one["loss"] for one in lines if one.get("loss") is not None}
    precisions = {one["epoch"]: 100 * one["dev_map"] for one in lines if "dev_map" in one}
    figure = Figure(figsize=(7, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(list(losses), list(losses.values()), marker=".")
    left.set(xlabel="epoch", ylabel="training loss")
    right.plot(list(precisions), list(precisions.values()), marker=".")
    right.set(xlabel="epoch", ylabel="dev mAP %")
    figure.savefig(target, dpi=120)
