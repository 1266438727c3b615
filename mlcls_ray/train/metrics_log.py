"""Metrics of a training: a progress bar, JSON lines, TensorBoard event files, and a picture of loss and dev mAP."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mlcls_ray.background import Wait, in_background
from mlcls_ray.terminal import make_console, print_plain, shows_bars

LINE_INTERVAL_S, FOLLOW_INTERVAL_S = 60.0, 1.0
METRICS, EVENTS, CURVES = "metrics.jsonl", "tensorboard", "curves.png"


def log_metrics(out: Path, metrics: dict[str, float | int | None]) -> None:
    """Append a line to metrics.jsonl, and its numbers to TensorBoard's files under its `step`."""
    with (out / METRICS).open("a", encoding="utf-8") as stream:
        stream.write(json.dumps({"time": round(time.time(), 1), **metrics}) + "\n")
    from tensorboardX import SummaryWriter  # the extra `train`; VisualDL can read its files too

    with SummaryWriter(str(out / EVENTS)) as writer:
        for name, value in metrics.items():
            if value is not None and name not in ("step", "epoch"):
                writer.add_scalar(name, value, metrics["step"])


def say_epoch(epoch: int, epochs: int, loss: float | None, dev_map: float, is_best: bool) -> None:
    """Print a line about an epoch, above the progress bar if there is one. `dev_map` is 0..1."""
    shown = "–" if loss is None else f"{loss:.3f}"
    best = ", the best so far" if is_best else ""
    print(f"epoch {epoch}/{epochs}: loss {shown}, dev mAP {100 * dev_map:.1f} %{best}", file=sys.stderr, flush=True)


def follow_epochs(out: Path, epochs: int, best: float, wait: Wait) -> None:
    """Print the line of each epoch that other processes write to metrics.jsonl from now on, until `wait` returns True.

    `best`: dev mAP (0..1) before. What the processes print themselves stays in Ray's logs.
    """
    path = out / METRICS
    position = path.stat().st_size if path.exists() else 0
    loss: float | None = None
    is_last = False
    while not is_last:
        is_last = wait(FOLLOW_INTERVAL_S)
        written = path.read_bytes()[position:] if path.exists() else b""
        whole, _, _ = written.rpartition(b"\n")
        position += len(whole) + 1 if whole else 0
        for line in map(json.loads, whole.splitlines()):
            loss = line.get("loss", loss)
            if "dev_map" in line:
                say_epoch(line["epoch"], epochs, loss, line["dev_map"], line["dev_map"] > best)
                best = max(best, line["dev_map"])


@contextlib.contextmanager
def following_epochs(out: Path, epochs: int, best: float) -> Iterator[None]:
    """Print what other processes do, see `follow_epochs`, while the body runs."""
    with in_background(partial(follow_epochs, out, epochs, best), "epochs"):
        yield


def draw_curves(out: Path) -> None:
    """Draw curves.png from the lines of metrics.jsonl."""
    from matplotlib.figure import Figure

    lines = [json.loads(line) for line in (out / METRICS).read_text("utf-8").splitlines()]
    losses = {line["epoch"]: line["loss"] for line in lines if line.get("loss") is not None}
    precisions = {line["epoch"]: 100 * line["dev_map"] for line in lines if "dev_map" in line}
    figure = Figure(figsize=(7, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(list(losses), list(losses.values()), marker=".")
    left.set(xlabel="epoch", ylabel="training loss")
    right.plot(list(precisions), list(precisions.values()), marker=".")
    right.set(xlabel="epoch", ylabel="dev mAP %")
    figure.savefig(out / CURVES, dpi=120)


class StepPrinter:
    """Prints now and then how far the training is, where there is no terminal for a bar."""

    def __init__(self, steps: int, done: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.steps, self.done, self.clock = steps, done, clock
        self.first_done = done
        self.started = self.printed_at = clock()

    def show(self, loss: float) -> None:
        self.done += 1
        now = self.clock()
        if now - self.printed_at < LINE_INTERVAL_S:
            return
        self.printed_at = now
        left_s = (self.steps - self.done) * (now - self.started) / (self.done - self.first_done)
        print_plain(f"step {self.done:,} of {self.steps:,}: loss {loss:.3f}, {left_s / 60:.0f} min left", error=True)


@contextlib.contextmanager
def progress_bar(steps: int, done: int) -> Iterator[Callable[[float], None]]:
    """Show a progress bar on a terminal, elsewhere a line now and then. The function that it gives takes the loss of each step."""
    if not shows_bars():
        yield StepPrinter(steps, done).show
        return
    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=make_console(stderr=True), redirect_stdout=False) as progress:
        task = progress.add_task("", total=steps, completed=done, loss="–")
        yield lambda loss: progress.update(task, advance=1, loss=f"{loss:.3f}")
