"""Commands that train and measure: `finetune`, `evaluate` and `calibrate`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from mlcls_ray.cli.flags import NO_FLAGS, Config, PrintConfig, S3Flags, flags, s3_options
from mlcls_ray.config_file import dump_config, load_config
from mlcls_ray.errors import UsageError, first_names
from mlcls_ray.terminal import showing_steps
from mlcls_ray.train.config import RENAMED, FinetuneJob

if TYPE_CHECKING:
    from mlcls_ray.table.label_table import LabelTable

    FinetuneFlags = Mapping[str, Any]
else:
    FinetuneFlags = Annotated[flags(FinetuneJob, renamed=RENAMED), Parameter(name="*")]

Truth = Annotated[
    Path,
    Parameter(help="The truth: a PaddleClas list (.txt), COCO instances (.json), or uri and labels (.csv, .parquet)."),
]
Table = Annotated[str | None, Parameter(help="An output folder of `mlcls label`, instead of --model.")]
Model = Annotated[str | None, Parameter(help="Name of a model (`mlcls models` lists them), or a model folder.")]
OldTable = Annotated[str | None, Parameter(show=False)]
"""`--table OUT`, as it was before OUT became a positional argument; it is still taken."""


def finetune(*, options: FinetuneFlags = NO_FLAGS, config: Config = None, print_config: PrintConfig = False) -> None:
    """Fine-tune a network on your own classes and images, and export the best epoch for `mlcls label --model OUT`.

    If training stops, run the same command again: it resumes from the last checkpoint. Check the data first with `mlcls dataset check`.
    """
    job = load_config(FinetuneJob, config, options, RENAMED)
    if print_config:
        print(dump_config(job), end="")
        return
    with showing_steps() as steps:
        steps.say("reading the data and the initial weights")
        from mlcls_ray.train.finetune import finetune as train

        result = train(job, steps=steps)
    when = f"at epoch {result.epoch}" if result.epoch else "before training"
    print(f"dev mAP {100 * result.mean_average_precision:.2f} {when}, {result.steps:,} steps")
    if result.fitted is not None:
        print(f"  without training, a head fitted to the frozen features: {100 * result.fitted:.2f}")
    if result.taken_over is not None:
        print(f"  without training, the head of the initial weights:      {100 * result.taken_over:.2f}")
    if not result.epoch:
        print("  no epoch was better than that: the exported model is the one before training")
    print(f"model:  {result.model}")
    print(f"card:   {result.model.parent / 'MODEL_CARD.md'}")
    print(f"curves: {result.model.parents[1] / 'curves.png'}")


def evaluate(
    out: Table = None,
    /,
    *,
    data: Truth | None = None,
    save: Annotated[Path, Parameter(name=["--save", "--out"])],
    model: Model = None,
    corrected: Annotated[bool, Parameter(negative=())] = False,
    table: OldTable = None,
    s3: S3Flags = NO_FLAGS,
) -> None:
    """Measure labels against the truth: mAP, F1, precision and recall, calibration, confusions and the worst images.

    Writes evaluation.json and evaluation.html. With --model the images are labeled first, as a job on Ray (RAY_ADDRESS: on a cluster).

    Parameters
    ----------
    save
        Folder for the results, and for the label table of --model.
    corrected
        Take the images that people accepted or corrected in `mlcls browse` for the truth, instead of --data.
    """
    from mlcls_ray.train import evaluate as evaluation

    if corrected == (data is not None):
        raise UsageError("give --data FILE or --corrected, and not both")
    labels = _open(out or table, model, data, save, s3)
    with showing_steps(on_terminal_only=True) as steps:
        steps.say("comparing the labels with the truth")
        compared = evaluation.compare(labels, data)
        result = evaluation.evaluate(compared)
    save.mkdir(parents=True, exist_ok=True)
    (save / "evaluation.json").write_text(result.model_dump_json(indent=1), encoding="utf-8")
    (save / "evaluation.html").write_text(evaluation.evaluation_page(labels, compared, result), encoding="utf-8")
    print(f"{result.images:,} images, {result.missing:,} without scores")
    for note in evaluation.class_notes(compared):
        print(note)
    print(
        f"mAP {100 * result.mean_average_precision:.2f}, CF1 {100 * result.class_f1:.1f}, OF1 {100 * result.overall_f1:.1f} "
        f"(precision {100 * result.overall_precision:.1f}, recall {100 * result.overall_recall:.1f}), "
        f"calibration error {result.calibration_error:.3f}, {result.labels_per_image:.2f} labels per image"
    )
    print(f"{save / 'evaluation.html'}")


def calibrate(
    out: Table = None,
    /,
    *,
    data: Truth,
    save: Path,
    model: Model = None,
    table: OldTable = None,
    target: str = "f1",
    work: Path | None = None,
    s3: S3Flags = NO_FLAGS,
) -> None:
    """Find a threshold for each class on a validation set, for `mlcls label --threshold FILE` and `mlcls relabel`.

    Parameters
    ----------
    save
        YAML file to write.
    target
        f1 (the highest), precision=P (the highest recall with at least this precision), or recall=R (the other way round).
    work
        Folder for the label table of --model. Default: the name in --save, ending in .table.
    """
    from mlcls_ray.labels.calibration import MIN_POSITIVES, parse_target
    from mlcls_ray.labels.metrics import agreement
    from mlcls_ray.labels.select import above_threshold
    from mlcls_ray.train import evaluate as evaluation

    objective = parse_target(target)
    labels = _open(out or table, model, data, work or save.with_suffix(".table"), s3)
    compared = evaluation.compare(labels, data)
    thresholds = evaluation.write_thresholds(compared, objective, save, labels.newest)
    after = above_threshold(compared.scores, thresholds)
    for name, predicted in (("before", compared.predicted), ("after", after)):
        quality = agreement(predicted, compared.targets)
        print(
            f"{name}: OF1 {100 * quality.overall_f1:.1f}, CF1 {100 * quality.class_f1:.1f}, "
            f"precision {100 * quality.overall_precision:.1f}, recall {100 * quality.overall_recall:.1f}"
        )
    if rare := evaluation.rare_names(compared):
        common = thresholds[compared.classes.index(rare[0])]
        print(
            f"{len(rare)} of {len(compared.classes)} classes have fewer than {MIN_POSITIVES} true images and get the threshold of all "
            f"classes together, {common:.3f}: {first_names(rare)}"
        )
    for note in evaluation.class_notes(compared):
        print(note)
    print(
        f"{save}: {len(thresholds)} thresholds from {len(compared.uris):,} images. "
        "Both lines are measured on these images; evaluate the thresholds on others"
    )


def _open(out: str | None, model: str | None, data: Path | None, work: Path, s3: Mapping[str, Any]) -> LabelTable:
    """Open the output `out` (without `data`: with its corrections), or label the images of the truth with `model` into `work`."""
    from mlcls_ray.table.label_table import open_labels
    from mlcls_ray.train.evaluate import label_truth

    if (model is None) == (out is None):
        raise UsageError("give the output folder of `mlcls label`, or --model, and not both")
    if out:
        return open_labels(out, s3_options(s3), corrected=data is None)
    if data is None:
        raise UsageError("--corrected takes the corrections of an output: give the output folder instead of --model")
    return label_truth(str(model), data, work)
