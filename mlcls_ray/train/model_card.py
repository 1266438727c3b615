"""The model card of a fine-tuned model, filled in by the program."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from mlcls_ray import __version__
from mlcls_ray.datasets.formats import Dataset
from mlcls_ray.labels.metrics import agreement, mean_average_precision, per_class_average_precision
from mlcls_ray.labels.select import above_threshold
from mlcls_ray.train.checkpoints import State
from mlcls_ray.train.config import FinetuneJob


def write_card(
    folder: Path,
    job: FinetuneJob,
    classes: tuple[str, ...],
    train: Dataset,
    dev: Dataset,
    scores: np.ndarray,
    threshold: float,
    state: State,
) -> None:
    """MODEL_CARD.md: what it was made of and how good it is. `scores`: float32 [N, C] of dev."""
    targets = dev.targets > 0.5
    told = agreement(above_threshold(scores, threshold), targets)
    precisions = per_class_average_precision(scores, dev.targets)
    by_class, overall = (", ".join(f"{100 * one:.1f} %" for one in (f1, *rest)) for *rest, f1 in (told[:3], told[3:]))
    rows = [
        f"| {name} | {int((train.targets[:, one] > 0.5).sum())} | {int(targets[:, one].sum())} | "
        f"{'–' if np.isnan(precisions[one]) else f'{100 * precisions[one]:.1f}'} |"
        for one, name in enumerate(classes)
    ]
    text = f"""# {job.network}, fine-tuned

Made by mlcls_ray {__version__} on {datetime.now(timezone.utc):%Y-%m-%d} from {job.start or "its usual start"}, {len(train.paths):,} images
of `{job.data.name}`, {job.epochs} epochs asked for, {state.step:,} steps done; the best epoch by dev mAP was number {state.best_epoch + 1}.

Opened by `mlcls label --model {job.out.name}/best_model/inference`, and by PaddleX.

| on {len(dev.paths):,} dev images, by which the epoch and the threshold were chosen | |
|---|---|
| mAP | {100 * mean_average_precision(scores, dev.targets):.2f} % |
| threshold (best overall F1) | {threshold:.4f} |
| overall F1, precision, recall | {overall} |
| mean over classes: F1, precision, recall | {by_class} |

| class | train images | dev images | dev AP % |
|---|---|---|---|
"""
    (folder / "MODEL_CARD.md").write_text(text + "\n".join(rows) + "\n", encoding="utf-8")
