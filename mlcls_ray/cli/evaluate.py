"""`mlcls evaluate` and `mlcls calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mlcls_ray.errors import UsageError

if TYPE_CHECKING:
    from mlcls_ray.table.label_table import LabelTable


def evaluate(*, data: Path, out: Path, model: str | None = None, table: str | None = None) -> None:
    """Measure labels against the truth: mAP, F1, precision and recall, calibration, confusions, the worst images.

    Writes evaluation.json and evaluation.html. A model labels the images first, as a job on Ray (RAY_ADDRESS: on a cluster).

    Parameters
    ----------
    data
        The truth: a PaddleClas list (.txt), COCO instances (.json), or uri and labels (.csv, .parquet).
    out
        Folder for the results, and for the model's label table.
    model
        A name (see `mlcls models`) or a model folder.
    table
        Instead of a model: an output folder of `mlcls label`.
    """
    from mlcls_ray.train import evaluate as evaluation

    opened = _open(model, table, data, out)
    compared = evaluation.compare(opened, data)
    result = evaluation.evaluate(compared)
    out.mkdir(parents=True, exist_ok=True)
    (out / "evaluation.json").write_text(result.model_dump_json(indent=1), encoding="utf-8")
    (out / "evaluation.html").write_text(evaluation.evaluation_page(opened, compared, result), encoding="utf-8")
    print(f"{result.images:,} images, {result.missing:,} without scores")
    print(
        f"mAP {100 * result.mean_average_precision:.2f}, CF1 {100 * result.class_f1:.1f}, OF1 {100 * result.overall_f1:.1f} "
        f"(precision {100 * result.overall_precision:.1f}, recall {100 * result.overall_recall:.1f}), "
        f"calibration error {result.calibration_error:.3f}, {result.labels_per_image:.2f} labels an image"
    )
    print(f"{out / 'evaluation.html'}")


def calibrate(
    *,
    data: Path,
    save: Path,
    model: str | None = None,
    table: str | None = None,
    target: str = "f1",
    work: Path | None = None,
) -> None:
    """Find a threshold for each class on a validation set, for `mlcls label --threshold FILE` and `mlcls relabel`.

    Parameters
    ----------
    data
        The truth: a PaddleClas list (.txt), COCO instances (.json), or uri and labels (.csv, .parquet).
    save
        The YAML file.
    model
        A name (see `mlcls models`) or a model folder.
    table
        Instead of a model: an output folder of `mlcls label`.
    target
        f1 (the best), precision=P (at least so much, and then the best recall), or recall=R.
    work
        Folder for the model's label table. Default: SAVE.table.
    """
    from mlcls_ray.labels.calibration import parse_target
    from mlcls_ray.labels.metrics import agreement
    from mlcls_ray.labels.select import above_threshold
    from mlcls_ray.train import evaluate as evaluation

    wanted = parse_target(target)
    opened = _open(model, table, data, work or save.with_suffix(".table"))
    compared = evaluation.compare(opened, data)
    chosen = evaluation.write_thresholds(compared, wanted, save, opened.newest)
    for name, predicted in (("before", compared.predicted), ("after", above_threshold(compared.scores, chosen))):
        told = agreement(predicted, compared.targets)
        print(
            f"{name}: OF1 {100 * told.overall_f1:.1f}, CF1 {100 * told.class_f1:.1f}, precision {100 * told.overall_precision:.1f}, "
            f"recall {100 * told.overall_recall:.1f}"
        )
    print(
        f"{save}: {len(chosen)} thresholds from {len(compared.uris):,} images (these same ones; judge them on others)"
    )


def _open(model: str | None, table: str | None, data: Path, out: Path) -> LabelTable:
    from mlcls_ray.table.label_table import open_labels
    from mlcls_ray.train.evaluate import label_truth

    if (model is None) == (table is None):
        raise UsageError("give --model or --table")
    return open_labels(table) if table else label_truth(str(model), data, out)
