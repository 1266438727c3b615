"""Commands about data sets for training: `dataset` with its subcommands, and `sample`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from mlcls_ray.cli.flags import NO_FLAGS, Corrected, Output, RunId, S3Flags, Vanished
from mlcls_ray.cli.present import open_present
from mlcls_ray.errors import RunError
from mlcls_ray.terminal import print_plain, showing_steps

app = App(name="dataset")
NewFolder = Annotated[Path, Parameter(name=["--save", "--out"], help="New folder to write.")]


@app.command
def check(folder: Path, *, html: Path | None = None, json: Annotated[bool, Parameter(negative=())] = False) -> None:
    """Find the errors of a data set: unreadable images, wrong vectors, images in two splits, empty classes. Exit code 1 if there are any.

    Parameters
    ----------
    folder
        Folder in PaddleClas's format: label.txt, and train.txt, dev.txt (or val.txt, test.txt) with `path<TAB>0,1,0,…`. Or with
        train.json (COCO instances), or train.csv or train.parquet (columns uri and labels).
    html
        HTML page to write, with class counts and samples; it opens from disk.
    json
        Print one JSON object per finding instead of a line of text.
    """
    from json import dumps

    from mlcls_ray.datasets import check as dataset_check

    with showing_steps(on_terminal_only=True) as steps:
        steps.say("reading and decoding the images")
        checked = dataset_check.check(folder)
    for finding in checked.findings:
        if json:
            print_plain(dumps(finding._asdict(), ensure_ascii=False))
        else:
            print_plain(f"{finding.severity}: {finding.where}: {finding.kind}: {finding.message}")
    if html is not None:
        html.write_text(dataset_check.page(folder, checked), encoding="utf-8")
    counts = ", ".join(f"{split} {images:,}" for split, images in checked.images.items())
    print(
        f"{counts} usable images; {checked.errors} errors, {len(checked.findings) - checked.errors} warnings",
        file=sys.stderr,
    )
    if checked.errors:
        sys.exit(RunError.exit_code)


@app.command
def split(data: Path, *, out: Path, dev: float = 0.2, test: float = 0.0, seed: int = 0) -> None:
    """Split a list into train.txt, dev.txt and test.txt, with the same share of every class in each.

    Parameters
    ----------
    data
        PaddleClas list with label.txt beside it; or COCO instances, or a CSV or Parquet file with the columns uri and labels.
    out
        New or empty folder. Paths in its lists are absolute.
    dev
        Share of the images for dev.txt.
    test
        Share of the images for test.txt.
    seed
        Seed of the random numbers: the same seed makes the same split.
    """
    from mlcls_ray.datasets.split import split_dataset

    for name, images in split_dataset(data, out, dev, test, seed).items():
        print(f"{out / name}.txt: {images:,} images")


@app.command
def from_labelstudio(export: Path, *, labels: Path, out: Path) -> None:
    """Make a data set from annotations of Label Studio: train.txt and label.txt, for `mlcls dataset split`.

    Parameters
    ----------
    export
        Export of the project, JSON or JSON-MIN.
    labels
        List of the classes, one per line (label.txt).
    out
        New folder to write.
    """
    from mlcls_ray.datasets.annotations import read_corrections, write_dataset
    from mlcls_ray.labels.vocabulary import read_vocabulary

    classes = read_vocabulary(labels)
    images = read_corrections(export, classes)
    write_dataset(images, classes, out)
    print(f"{out / 'train.txt'}: {len(images):,} annotated images")


@app.command
def from_table(
    out: Output,
    /,
    *,
    save: NewFolder,
    corrections: Path | None = None,
    soft: Annotated[bool, Parameter(negative=())] = False,
    corrected: Corrected = False,
    run_id: RunId = None,
    vanished: Vanished = False,
    s3: S3Flags = NO_FLAGS,
) -> None:
    """Make a data set from a label table: train.txt and label.txt, for `mlcls dataset split`.

    Parameters
    ----------
    corrections
        Export of Label Studio with corrected labels, JSON or JSON-MIN.
    soft
        Write all scores as soft labels, to distill the model that gave them, instead of the labels above the thresholds.
    corrected
        With the labels as people corrected them in `mlcls browse`, and without the images that they are unsure of.
    """
    from mlcls_ray.datasets.annotations import correction_notes, dataset_of_table

    table = open_present(out, s3, run_id, vanished, corrected)
    images = dataset_of_table(table, corrections, soft, save)
    for note in correction_notes(table):
        print_plain(note, error=True)
    print(f"{save / 'train.txt'}: {images:,} images")


def sample(
    out: Output,
    /,
    *,
    save: NewFolder,
    strategy: Literal["uncertain", "diverse", "random"] = "uncertain",
    n: Annotated[int, Parameter(name=["--n", "-n"])] = 500,
    run_id: RunId = None,
    vanished: Vanished = False,
    s3: S3Flags = NO_FLAGS,
) -> None:
    """Choose the images to annotate next, and write them as a list, a contact sheet, Label Studio tasks and a FiftyOne folder.

    Parameters
    ----------
    strategy
        uncertain (scores near their thresholds), diverse (unlike each other), or random.
    n
        Number of images.
    """
    from mlcls_ray.datasets import annotations
    from mlcls_ray.datasets import sample as sampling
    from mlcls_ray.table.export.base import table_vocabulary

    table = open_present(out, s3, run_id, vanished)
    rows = sampling.sample(table, strategy, n)
    title = f"{len(rows)} images to annotate ({strategy})"
    annotations.write_sample(rows, table_vocabulary(table), save, table.store.s3, title)
    print(f"{save}: {len(rows):,} images")
