"""`mlcls evaluate` and `mlcls calibrate`: compare a label table with the true labels. A model is evaluated by labeling the images first."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict

from mlcls_ray.config import LabelJob, S3Options
from mlcls_ray.datasets.ground_truth import Truth, read_truth, truth_of_corrections
from mlcls_ray.errors import UsageError, first_names
from mlcls_ray.explore.page import render
from mlcls_ray.job.label import label
from mlcls_ray.labels.calibration import Target, choose_thresholds, rare_classes
from mlcls_ray.labels.label_map import ResolvedLabelMap, merge_classes
from mlcls_ray.labels.metrics import agreement, calibration_error, per_class_average_precision
from mlcls_ray.labels.select import above_threshold
from mlcls_ray.labels.thresholds import FILE_VERSION, VERSION
from mlcls_ray.models.cache import open_model
from mlcls_ray.storage.uris import redact_url
from mlcls_ray.table.export.base import table_map
from mlcls_ray.table.label_table import LabelTable, open_labels
from mlcls_ray.table.records import RunRecord

TABLE = "table"
MAX_CONFUSIONS, MAX_WORST_IMAGES = 20, 60
ROWS_PER_FETCH = 10_000


class Comparison(NamedTuple):
    """The images that have scores in the table and true labels: `scores` float32 [N, C], `predicted` and `targets` bool [N, C].

    The classes are those that the truth covers. Of a table with a label map they are its labels: the score of one is the greatest of its
    classes.
    """

    uris: list[str]
    scores: np.ndarray
    predicted: np.ndarray
    targets: np.ndarray
    classes: list[str]
    thresholds: list[float]
    """Of merged classes the lowest one."""
    missing: int
    """Number of images with true labels and without scores in the table."""
    model: str
    left_out: tuple[str, ...] = ()
    """Classes of the model that the truth does not cover: whether a label of them is right cannot be known."""
    never_true: tuple[str, ...] = ()
    """Classes that are on no image, where the truth does not say which classes it covers: labels of them count as wrong."""


class ClassResult(BaseModel):
    """One class. Values are 0..1. `average_precision` is None without true images, `precision` without predicted ones."""

    model_config = ConfigDict(frozen=True)

    name: str
    positives: int
    average_precision: float | None
    threshold: float
    precision: float | None
    recall: float | None


class Confusion(BaseModel):
    """The number of images on which the label `missed` is true and not predicted, and `given` is predicted and not true."""

    model_config = ConfigDict(frozen=True)

    missed: str
    given: str
    images: int


class WorstImage(NamedTuple):
    """An image with the labels that were missed, and those that were predicted wrongly."""

    uri: str
    missed: list[str]
    wrong: list[str]


class Evaluation(BaseModel):
    """The content of evaluation.json. Values are 0..1; `mean_average_precision` is over the classes that have true images."""

    model_config = ConfigDict(frozen=True)

    model: str
    images: int
    missing: int
    left_out: int = 0
    """Number of the model's classes that the truth does not cover."""
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


def label_truth(model: str, data: Path, out: Path, s3: S3Options | None = None) -> LabelTable:
    """Label the images of a ground truth file by a labeling job, into a table in the folder `out`.

    Raises: as `label` and `read_truth`.
    """
    truth = read_truth(data, open_model(model).vocabulary)
    out.mkdir(parents=True, exist_ok=True)
    uri_list = out / "images.txt"
    uri_list.write_text("".join(f"{uri}\n" for uri in truth.uris), encoding="utf-8", errors="surrogateescape")
    label(LabelJob(inputs=(str(uri_list),), out=str(out / TABLE), model=model, s3=s3 or S3Options()))
    return open_labels(str(out / TABLE), s3)


def compare(table: LabelTable, data: Path | None) -> Comparison:
    """Join the newest scores of each image with its true labels.

    Args:
        table: A label table; without `data` one with corrections.
        data: The truth; None: what people said in `mlcls browse`, without the images that they are unsure of.

    Raises:
        UsageError: the table has several vocabularies or label maps, no scores, or none of the images.
    """
    label_map = table_map(table)
    classes = label_map.labels
    truth = _read_truth(data, label_map) if data else truth_of_corrections(table, classes)
    scores, has_scores = _read_scores(table, truth, len(label_map.vocabulary))
    if not has_scores.any():
        raise UsageError(
            f"'{redact_url(table.store.root)}' has scores of none of the {len(truth.uris)} images of '{data}'"
        )
    limits = table.newest.label_thresholds
    thresholds = [limits[name] for name in classes]
    is_above = above_threshold(scores, np.array(list(table.newest.thresholds.values()), np.float32))
    scores, predicted = merge_classes(scores, label_map.groups), merge_classes(is_above, label_map.groups)
    if not truth.covered.any():
        raise UsageError(f"data '{data}' covers no class of the model")
    covered = np.flatnonzero(truth.covered)
    scores, targets = scores[has_scores][:, covered], truth.targets[has_scores][:, covered]
    names = [classes[class_id] for class_id in covered]
    never_true = () if truth.is_listed else tuple(np.array(names)[~targets.any(axis=0)].tolist())
    return Comparison(
        uris=[uri for uri, has_score in zip(truth.uris, has_scores, strict=True) if has_score],
        scores=scores,
        predicted=predicted[has_scores][:, covered],
        targets=targets,
        classes=names,
        thresholds=[thresholds[class_id] for class_id in covered],
        missing=int((~has_scores).sum()),
        model=table.newest.model,
        left_out=tuple(name for name, is_covered in zip(classes, truth.covered, strict=True) if not is_covered),
        never_true=never_true,
    )


def _read_truth(data: Path, label_map: ResolvedLabelMap) -> Truth:
    """Read the truth in the words of the labels, or else in those of the model, which the map turns into labels.

    Raises: as `read_truth`.
    """
    try:
        return read_truth(data, label_map.labels)
    except UsageError:
        if label_map.groups is None:
            raise
        truth = read_truth(data, label_map.vocabulary)
    # A label is covered where the truth knows all of its classes.
    uncovered = merge_classes(~truth.covered[None], label_map.groups)[0]
    return truth._replace(targets=merge_classes(truth.targets, label_map.groups), covered=~uncovered)


def class_notes(comparison: Comparison) -> list[str]:
    """Say which classes of the model are not measured, and which are measured on no true image."""
    total = len(comparison.classes) + len(comparison.left_out)
    notes = []
    if comparison.left_out:
        notes.append(
            f"{len(comparison.left_out)} of the model's {total} classes are not among those of the truth, and left out: "
            f"{first_names(comparison.left_out)}"
        )
    if comparison.never_true:
        notes.append(
            f"{len(comparison.never_true)} of the model's {total} classes are on no image of the truth; labels of them count as wrong: "
            f"{first_names(comparison.never_true)}. If the truth does not cover them, name its classes in a label.txt beside it"
        )
    return notes


def _read_scores(table: LabelTable, truth: Truth, class_num: int) -> tuple[np.ndarray, np.ndarray]:
    """Read scores float32 [N, C] in the truth's order, and which of its images have scores, bool [N]."""
    row_of = {uri: row for row, uri in enumerate(truth.uris)}
    scores = np.zeros((len(truth.uris), class_num), np.float32)
    has_scores = np.zeros(len(truth.uris), bool)
    rows = table.sql("SELECT uri, all_scores FROM labels WHERE status = 'ok'")
    for batch in rows.to_arrow_reader(ROWS_PER_FETCH):
        for uri, all_scores in zip(batch["uri"].to_pylist(), batch["all_scores"].to_pylist(), strict=True):
            if uri in row_of:
                if all_scores is None or None in all_scores:
                    raise UsageError("the table does not keep all scores (all_scores: all); label the images again")
                scores[row_of[uri]], has_scores[row_of[uri]] = all_scores, True
    return scores, has_scores


def evaluate(comparison: Comparison) -> Evaluation:
    """Compute all metrics."""
    average_precisions = per_class_average_precision(comparison.scores, comparison.targets)
    metrics = agreement(comparison.predicted, comparison.targets)
    hits = np.logical_and(comparison.predicted, comparison.targets).sum(axis=0)
    predicted, positives = comparison.predicted.sum(axis=0), comparison.targets.sum(axis=0)
    classes = [
        ClassResult(
            name=name,
            positives=int(positives[class_id]),
            average_precision=_rounded(average_precisions[class_id]) if positives[class_id] else None,
            threshold=comparison.thresholds[class_id],
            precision=_rounded(hits[class_id] / predicted[class_id]) if predicted[class_id] else None,
            recall=_rounded(hits[class_id] / positives[class_id]) if positives[class_id] else None,
        )
        for class_id, name in enumerate(comparison.classes)
    ]
    return Evaluation(
        model=comparison.model,
        images=len(comparison.uris),
        missing=comparison.missing,
        left_out=len(comparison.left_out),
        mean_average_precision=_rounded(np.nanmean(average_precisions)),
        calibration_error=_rounded(calibration_error(comparison.scores, comparison.targets)),
        labels_per_image=round(float(comparison.predicted.sum(axis=1).mean()), 2),
        classes=classes,
        confusions=confusions(comparison),
        **{name: _rounded(value) for name, value in metrics._asdict().items()},
    )


def _rounded(value: float) -> float:
    return round(float(value), 4)


def confusions(comparison: Comparison) -> list[Confusion]:
    """Find the most frequent pairs of a missed label and a wrong label on one image."""
    pairs: Counter[tuple[int, int]] = Counter()
    for missed, wrong in zip(*_differences(comparison), strict=True):
        pairs.update((int(missed_id), int(wrong_id)) for missed_id in missed for wrong_id in wrong)
    names = comparison.classes
    return [
        Confusion(missed=names[missed_id], given=names[wrong_id], images=images)
        for (missed_id, wrong_id), images in pairs.most_common(MAX_CONFUSIONS)
    ]


def worst_images(comparison: Comparison, count: int = MAX_WORST_IMAGES) -> list[WorstImage]:
    """Find the images whose scores are farthest from the true labels (by binary cross-entropy), the worst first."""
    scores = np.clip(comparison.scores, 1e-6, 1 - 1e-6)
    loss = -np.where(comparison.targets, np.log(scores), np.log1p(-scores)).sum(axis=1)
    missed, wrong = _differences(comparison)
    names = comparison.classes
    return [
        WorstImage(
            comparison.uris[row],
            [names[class_id] for class_id in missed[row]],
            [names[class_id] for class_id in wrong[row]],
        )
        for row in np.argsort(-loss)[:count]
    ]


def _differences(comparison: Comparison) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the ids of the missed classes of each image, and of those that were predicted wrongly."""
    missed = comparison.targets & ~comparison.predicted
    wrong = comparison.predicted & ~comparison.targets
    return [np.flatnonzero(row) for row in missed], [np.flatnonzero(row) for row in wrong]


def evaluation_page(table: LabelTable, comparison: Comparison, result: Evaluation) -> str:
    """Render an evaluation as one HTML file, with the worst images."""
    examples = worst_images(comparison)
    values = {"result": result, "examples": examples, "notes": class_notes(comparison)}
    uris = [example.uri for example in examples]
    return render("evaluation.html.j2", table.store.s3, uris, MAX_WORST_IMAGES, values)


def write_thresholds(comparison: Comparison, target: Target, path: Path, record: RunRecord) -> np.ndarray:
    """Choose thresholds for a target, write them as YAML for `--threshold`, and return them, float32 [C]. Classes left out are not written.

    The threshold of a label is that of each class that gives it.

    Raises:
        UsageError: the file cannot be written.
    """
    thresholds = choose_thresholds(comparison.scores, comparison.targets, target)
    by_label = {name: round(float(value), 5) for name, value in zip(comparison.classes, thresholds, strict=True)}
    content = {
        VERSION: FILE_VERSION,
        "target": str(target),
        "model": record.model,
        "model_fingerprint": record.model_fingerprint,
        "images": len(comparison.uris),
        "made_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "common_threshold": rare_names(comparison),
        "classes": {name: by_label[label] for name, label in record.resolved_map.by_class if label in by_label},
    }
    try:
        path.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"'{path}' cannot be written: {error.strerror}") from None
    return thresholds


def rare_names(comparison: Comparison) -> list[str]:
    """List the classes with too few true images for a threshold of their own."""
    rare = rare_classes(comparison.targets)
    return [name for name, is_rare in zip(comparison.classes, rare, strict=True) if is_rare]
