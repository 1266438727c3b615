"""What a training tells while it runs: a bar, JSON lines for any script, TensorBoard's event files, a picture of loss and dev mAP."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

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


@contextlib.contextmanager
def progress_bar(steps: int, done: int) -> Iterator[Any]:
    """A live bar on a terminal, else nothing: the metrics file has it all."""
    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("", total=steps, completed=done, loss="–")
        yield lambda loss: progress.update(task, advance=1, loss=f"{loss:.3f}")
