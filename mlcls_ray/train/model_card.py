"""The model card of a fine-tuned model."""

from __future__ import annotations

import re
import shlex
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from mlcls_ray import __version__
from mlcls_ray.labels.metrics import agreement, mean_average_precision, per_class_average_precision
from mlcls_ray.labels.select import above_threshold
from mlcls_ray.terminal import plain
from mlcls_ray.train.checkpoints import State
from mlcls_ray.train.prepare import Setup

NAME = "MODEL_CARD.md"


def write_model_card(folder: Path, setup: Setup, scores: np.ndarray, threshold: float, state: State) -> None:
    """Write MODEL_CARD.md: data, training and quality of the model. `scores`: float32 [N, C] of the dev images."""
    job, train, dev = setup.job, setup.train, setup.dev
    dev_labels = dev.targets > 0.5
    metrics = agreement(above_threshold(scores, threshold), dev_labels)
    overall = _percent(metrics.overall_f1, metrics.overall_precision, metrics.overall_recall)
    by_class = _percent(metrics.class_f1, metrics.class_precision, metrics.class_recall)
    precisions = per_class_average_precision(scores, dev.targets)
    rows = [
        f"| {_cell(name)} | {int((train.targets[:, class_id] > 0.5).sum())} | {int(dev_labels[:, class_id].sum())} | "
        f"{'–' if np.isnan(precisions[class_id]) else f'{100 * precisions[class_id]:.1f}'} |"
        for class_id, name in enumerate(setup.classes)
    ]
    best = (
        f"Of its epochs, number {state.best_epoch + 1} is the best by dev mAP."
        if state.best_epoch >= 0
        else (
            "No epoch was better than the start by dev mAP: this is the network before training, with its head fitted to the images."
        )
    )
    text = f"""# {job.name or job.out.name}: {setup.spec.name}, fine-tuned

Trained by mlcls_ray {__version__} on {datetime.now(timezone.utc):%Y-%m-%d}, starting from {job.init_from or "the usual weights"},
on {len(train.paths):,} images of `{job.data.name}`: {state.step:,} steps, at most {job.epochs} epochs.
{best}

Use it with `mlcls label --model {shlex.quote(job.out.name)}/best_model/inference`, or with PaddleX.

| on {len(dev.paths):,} dev images, which also chose the epoch and the threshold | |
|---|---|
| mAP | {100 * mean_average_precision(scores, dev.targets):.2f} % |
| mAP before training, with the initial weights' own head | {_map_or_dash(state.taken_over)} |
| mAP before training, with the head fitted to the frozen features | {_map_or_dash(state.fitted)} |
| threshold (best overall F1) | {threshold:.4f} |
| overall F1, precision, recall | {overall} |
| mean over classes: F1, precision, recall | {by_class} |

| class | train images | dev images | dev AP % |
|---|---|---|---|
"""
    (folder / NAME).write_text(text + "\n".join(rows) + "\n", encoding="utf-8")


def _cell(text: str) -> str:
    """A class name as the text of a Markdown table's cell."""
    return re.sub(r"([\\`*_{}\[\]<>#|!])", r"\\\1", plain(text))


def _percent(*shares: float) -> str:
    return ", ".join(f"{100 * share:.1f} %" for share in shares)


def _map_or_dash(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f} %"
