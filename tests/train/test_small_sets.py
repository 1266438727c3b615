"""Fine-tuning on few photographs starts from something better than a logistic regression, and not worse than the starter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from mlcls_ray.datasets.formats import read_dataset, write_list
from mlcls_ray.labels.metrics import mean_average_precision
from mlcls_ray.labels.vocabulary import read_vocabulary
from mlcls_ray.train.config import FinetuneJob
from mlcls_ray.train.dev_scores import load_pixels
from mlcls_ray.train.features import head_of, make_extractor, read_features
from mlcls_ray.train.head_start import Baseline, fit_head
from mlcls_ray.train.prepare import Setup, prepare

pytestmark = pytest.mark.slow
CLASSES = ("person", "car", "dining table")
COUNTS = {"train": 60, "dev": 30}


def small_set(coco: Path, folder: Path, seed: int) -> Path:
    """Draw 60 and 30 photographs, with three of their classes."""
    names = read_vocabulary(coco / "label.txt")
    columns = [names.index(name) for name in CLASSES]
    random = np.random.default_rng(seed)
    folder.mkdir()
    (folder / "label.txt").write_text("".join(f"{name}\n" for name in CLASSES))
    for split, count in COUNTS.items():
        data = read_dataset(coco / f"{split}.txt", len(names))
        rows = random.permutation(len(data.paths))[:count]
        write_list(folder / f"{split}.txt", [data.paths[row] for row in rows], data.targets[np.ix_(rows, columns)])
    return folder


def logistic_regression(setup: Setup) -> float:
    """Return dev mAP of logistic regressions on the pooled features that `mlcls label --embeddings` gives."""
    head, extract = head_of(setup), make_extractor(setup)
    average = {}
    for name, data in (("train", setup.train), ("dev", setup.dev)):
        batches = read_features(head, extract, data.paths, lambda path: load_pixels(path, setup.preprocess))
        average[name] = np.concatenate([batch.inputs for batch in batches])[:, : setup.spec.channels]
    scores = [
        LogisticRegression(max_iter=2000).fit(average["train"], targets).predict_proba(average["dev"])[:, 1]
        for targets in setup.train.targets.T
    ]
    return mean_average_precision(np.stack(scores, axis=1), setup.dev.targets)


def start_of(data: Path, out: Path) -> tuple[Setup, Baseline]:
    setup = prepare(FinetuneJob(data=data, out=out))
    baseline = fit_head(setup)
    assert baseline is not None
    return setup, baseline


def test_sixty_photographs_of_three_classes(shared_data: Path, tmp_path: Path) -> None:
    """Five draws. What is exported is at least this start."""
    starts, regressions, starters = [], [], []
    for seed in range(5):
        data = small_set(shared_data / "coco_mini", tmp_path / str(seed), seed)
        setup, baseline = start_of(data, tmp_path / "out")
        assert baseline.taken_over is not None
        starts.append(baseline.best)
        starters.append(baseline.taken_over)
        regressions.append(logistic_regression(setup))
    for name, values in (("start", starts), ("logistic regression", regressions), ("starter", starters)):
        print(f"{name}: {' '.join(f'{100 * value:.1f}' for value in values)}, mean {100 * np.mean(values):.1f}")
    assert np.mean(starts) >= np.mean(regressions)
    assert all(start >= starter for start, starter in zip(starts, starters, strict=True))


def test_all_classes_of_the_starter(shared_data: Path, tmp_path: Path) -> None:
    _, baseline = start_of(shared_data / "coco_mini", tmp_path)
    assert baseline.taken_over == pytest.approx(0.71, abs=0.01)
    assert baseline.best >= baseline.taken_over
