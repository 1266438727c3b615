"""`mlcls evaluate` and `mlcls calibrate`: a label table against the truth. A model is evaluated by the table that the job makes with it."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict

from mlcls_ray.config import LabelJob
from mlcls_ray.datasets.ground_truth import Truth, read_truth
from mlcls_ray.errors import UsageError
from mlcls_ray.explore.page import render
from mlcls_ray.job.label import label
from mlcls_ray.labels.calibration import Target, choose_thresholds
from mlcls_ray.labels.metrics import agreement, calibration_error, per_class_average_precision
from mlcls_ray.labels.select import above_threshold
from mlcls_ray.labels.thresholds import FILE_VERSION, VERSION
from mlcls_ray.storage.uris import redact_url
from mlcls_ray.table.export.base import table_vocabulary
from mlcls_ray.table.label_table import LabelTable, open_labels
from mlcls_ray.table.records import RunRecord

TABLE = "table"
CONFUSIONS, WORST = 20, 60


class Compared(NamedTuple):
    """Images that both the table and the truth have: `scores` float32 [N, C], `predicted` and `targets` bool [N, C]."""

    uris: list[str]
    scores: np.ndarray
    predicted: np.ndarray
    targets: np.ndarray
    classes: list[str]
    thresholds: list[float]
    missing: int
    """How many images of the truth have no scores in the table."""
    model: str


class ClassResult(BaseModel):
    """One class; `average_precision` is None where no image truly has it. Shares are 0..1."""

    model_config = ConfigDict(frozen=True)

    name: str
    positives: int
    average_precision: float | None
    threshold: float
    precision: float | None
    recall: float | None


class Confusion(BaseModel):
    """On so many images `missed` is true and not given, and `given` is given and not true."""

    model_config = ConfigDict(frozen=True)

    missed: str
    given: str
    images: int


class Evaluation(BaseModel):
    """Shares are 0..1, `mean_average_precision` over the classes that some image truly has."""

    model_config = ConfigDict(frozen=True)

    model: str
    images: int
    missing: int
    mean_average_precision: float
    class_f1: float
    class_precision: float
    class_recall: float
    overall_f1: float
    overall_precision: float
    overall_recall: float
    calibration_error: float
    labels_per_image: float
    classes: list[ClassResult]
    confusions: list[Confusion]


def label_truth(model: str, data: Path, out: Path) -> LabelTable:
    """Label the images of a data set with a model, as any job does: a table under `out`.

    Raises: what `label` raises.
    """
    from mlcls_ray.models.cache import open_model

    truth = read_truth(data, open_model(model).vocabulary)
    out.mkdir(parents=True, exist_ok=True)
    listed = out / "images.txt"
    listed.write_text("".join(f"{uri}\n" for uri in truth.uris), encoding="utf-8", errors="surrogateescape")
    label(LabelJob(inputs=(str(listed),), out=str(out / TABLE), model=model))
    return open_labels(str(out / TABLE))


def compare(table: LabelTable, data: Path) -> Compared:
    """The newest scores of each image, beside the truth.

    Raises:
        UsageError: the table has several vocabularies, no scores, or none of the images.
    """
    classes = table_vocabulary(table)
    truth = read_truth(data, classes)
    scores, is_there = _scores(table, truth, len(classes))
    if not is_there.any():
        raise UsageError(
            f"'{redact_url(table.store.root)}' has scores of none of the {len(truth.uris)} images of '{data}'"
        )
    thresholds = list(table.newest.thresholds.values())
    return Compared(
        uris=[uri for uri, there in zip(truth.uris, is_there, strict=True) if there],
        scores=scores[is_there],
        predicted=above_threshold(scores[is_there], np.array(thresholds, np.float32)),
        targets=truth.targets[is_there],
        classes=classes,
        thresholds=thresholds,
        missing=int((~is_there).sum()),
        model=table.newest.model,
    )


def _scores(table: LabelTable, truth: Truth, class_num: int) -> tuple[np.ndarray, np.ndarray]:
    """float32 [N, C] in the truth's order, and which of them the table has."""
    places = {uri: place for place, uri in enumerate(truth.uris)}
    scores = np.zeros((len(truth.uris), class_num), np.float32)
    is_there = np.zeros(len(truth.uris), bool)
    query = "SELECT uri, all_scores FROM labels WHERE status = 'ok'"
    for batch in table.database.sql(query).to_arrow_reader(10_000):
        for uri, found in zip(batch.column(0).to_pylist(), batch.column(1).to_pylist(), strict=True):
            if uri in places:
                if found is None or None in found:
                    raise UsageError("the table does not keep all scores (all_scores: all); label the images again")
                scores[places[uri]], is_there[places[uri]] = found, True
    return scores, is_there


def evaluate(compared: Compared) -> Evaluation:
    """All of it."""
    precisions = per_class_average_precision(compared.scores, compared.targets)
    agreed = agreement(compared.predicted, compared.targets)
    hits = np.logical_and(compared.predicted, compared.targets).sum(axis=0)
    given, true = compared.predicted.sum(axis=0), compared.targets.sum(axis=0)
    classes = [
        ClassResult(
            name=name,
            positives=int(true[one]),
            average_precision=None if np.isnan(precisions[one]) else round(float(precisions[one]), 4),
            threshold=compared.thresholds[one],
            precision=round(float(hits[one] / given[one]), 4) if given[one] else None,
            recall=round(float(hits[one] / true[one]), 4) if true[one] else None,
        )
        for one, name in enumerate(compared.classes)
    ]
    return Evaluation(
        model=compared.model,
        images=len(compared.uris),
        missing=compared.missing,
        mean_average_precision=round(float(np.nanmean(precisions)), 4),
        calibration_error=round(calibration_error(compared.scores, compared.targets), 4),
        labels_per_image=round(float(compared.predicted.sum(axis=1).mean()), 2),
        classes=classes,
        confusions=confusions(compared),
        **{name: round(value, 4) for name, value in agreed._asdict().items()},
    )


def confusions(compared: Compared) -> list[Confusion]:
    """The most frequent pairs of a label that was missed and one that was given instead, on one image."""
    pairs: Counter[tuple[int, int]] = Counter()
    for row in range(len(compared.uris)):
        missed = np.flatnonzero(compared.targets[row] & ~compared.predicted[row])
        wrong = np.flatnonzero(compared.predicted[row] & ~compared.targets[row])
        pairs.update((int(one), int(other)) for one in missed for other in wrong)
    return [
        Confusion(missed=compared.classes[one], given=compared.classes[other], images=count)
        for (one, other), count in pairs.most_common(CONFUSIONS)
    ]


def worst(compared: Compared, count: int = WORST) -> list[tuple[str, list[str], list[str]]]:
    """Uri, missed and wrong labels of the images whose scores are farthest from the truth (binary cross-entropy)."""
    held = np.clip(compared.scores, 1e-6, 1 - 1e-6)
    loss = -np.where(compared.targets, np.log(held), np.log1p(-held)).sum(axis=1)
    found = []
    for row in np.argsort(-loss)[:count]:
        missed = np.flatnonzero(compared.targets[row] & ~compared.predicted[row])
        wrong = np.flatnonzero(compared.predicted[row] & ~compared.targets[row])
        names = [[compared.classes[one] for one in ones] for ones in (missed, wrong)]
        found.append((compared.uris[row], *names))
    return found


def evaluation_page(table: LabelTable, compared: Compared, result: Evaluation) -> str:
    """The same as one HTML file, with the worst images."""
    examples = worst(compared)
    values = {"result": result, "examples": examples}
    return render("evaluation.html.j2", table.store.s3, [uri for uri, _, _ in examples], WORST, values)


def write_thresholds(compared: Compared, target: Target, path: Path, record: RunRecord) -> np.ndarray:
    """Thresholds for a target as a YAML file that `--threshold` takes; returns them, float32 [C].

    Raises:
        UsageError: the file cannot be written.
    """
    chosen = choose_thresholds(compared.scores, compared.targets, target)
    told = {
        VERSION: FILE_VERSION,
        "target": str(target),
        "model": record.model,
        "model_fingerprint": record.model_fingerprint,
        "images": len(compared.uris),
        "made_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "classes": {name: round(float(value), 5) for name, value in zip(compared.classes, chosen, strict=True)},
    }
    try:
        path.write_text(yaml.safe_dump(told, sort_keys=False, allow_unicode=True), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"'{path}' cannot be written: {error.strerror}") from None
    return chosen
