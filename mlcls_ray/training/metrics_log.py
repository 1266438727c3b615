"""What a training tells while it runs: JSON lines for any script, TensorBoard's event files, and a picture of loss and dev mAP."""

from __future__ import annotations

import json
import time
from pathlib import Path

METRICS, EVENTS, CURVES = "metrics.jsonl", "tensorboard", "curves.png"


def note(out: Path, told: dict[str, float | int | None]) -> None:
    """Add one line to metrics.jsonl, and its numbers to TensorBoard's files, under their `step`."""
    with (out / METRICS).open("a", encoding="utf-8") as stream:
        stream.write(json.dumps({"time": round(time.time(), 1), **told}) + "\n")
    from tensorboardX import SummaryWriter  # the extra `train`; VisualDL reads its files too

    with SummaryWriter(str(out / EVENTS)) as writer:
        for name, value in told.items():
            if value is not None and name not in ("step", "epoch"):
                writer.add_scalar(name, value, told["step"])


def draw_curves(out: Path) -> None:
    """curves.png from the lines of metrics.jsonl."""
    from matplotlib.figure import Figure

    lines = [json.loads(line) for line in (out / METRICS).read_text("utf-8").splitlines()]
    losses = {one["epoch"]: one["loss"] for one in lines if one.get("loss") is not None}
    precisions = {one["epoch"]: 100 * one["dev_map"] for one in lines if "dev_map" in one}
    figure = Figure(figsize=(7, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(list(losses), list(losses.values()), marker=".")
    left.set(xlabel="epoch", ylabel="training loss")
    right.plot(list(precisions), list(precisions.values()), marker=".")
    right.set(xlabel="epoch", ylabel="dev mAP %")
    figure.savefig(out / CURVES, dpi=120)
