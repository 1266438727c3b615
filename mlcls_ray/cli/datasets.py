"""`mlcls dataset` and `mlcls sample`: what training starts from."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from mlcls_ray.errors import RunError


def check(folder: Path, *, html: Path | None = None, json: Annotated[bool, Parameter(negative=())] = False) -> None:
    """Find what is wrong with a data set: unreadable images, wrong vectors, images in two splits, empty classes. Exit code 1 on errors.

    Parameters
    ----------
    folder
        PaddleClas's format: label.txt, and train.txt, dev.txt (or val.txt, test.txt) with `path<TAB>0,1,0,…`. Or train.json of COCO
        instances, train.csv or train.parquet with the columns uri and labels, and so on.
    html
        Also a page with class counts and samples, to be opened from disk.
    json
        One JSON object a finding, instead of lines.
    """
    from json import dumps

    from mlcls_ray.datasets import check as dataset_check

    checked = dataset_check.check(folder)
    for finding in checked.findings:
        if json:
            print(dumps(finding._asdict(), ensure_ascii=False))
        else:
            print(f"{finding.severity}: {finding.where}: {finding.kind}: {finding.message}")
    if html is not None:
        html.write_text(dataset_check.page(folder, checked), encoding="utf-8")
    told = ", ".join(f"{split} {images:,}" for split, images in checked.images.items())
    print(
        f"{told} usable images; {checked.errors} errors, {len(checked.findings) - checked.errors} warnings",
        file=sys.stderr,
    )
    if checked.errors:
        sys.exit(RunError.exit_code)


def split(data: Path, *, out: Path, dev: float = 0.2, test: float = 0.0, seed: int = 0) -> None:
    """Split a list into train.txt, dev.txt (and test.txt), each with its share of every class.

    Parameters
    ----------
    data
        A PaddleClas list with label.txt beside it; or COCO instances, a CSV or a Parquet file with the columns uri and labels.
    out
        A new or empty folder; paths in it are absolute.
    dev
        Share of the images for dev.txt.
    test
        Share of the images for test.txt.
    seed
        The same seed makes the same split.
    """
    from mlcls_ray.datasets.split import split_dataset

    for name, images in split_dataset(data, out, dev, test, seed).items():
        print(f"{out / name}.txt: {images:,} images")


def from_labelstudio(export: Path, *, labels: Path, out: Path) -> None:
    """Make a data set of what people have annotated in Label Studio: train.txt and label.txt, for `mlcls dataset split`.

    Parameters
    ----------
    export
        The project's export, JSON or JSON-MIN.
    labels
        The class list, one a line (label.txt).
    out
        The new folder.
    """
    from mlcls_ray.datasets.annotations import read_corrections, write_dataset
    from mlcls_ray.labels.vocabulary import read_vocabulary

    classes = read_vocabulary(labels)
    found = read_corrections(export, classes)
    write_dataset(found, classes, out)
    print(f"{out / 'train.txt'}: {len(found):,} annotated images")


def from_table(
    table: str,
    *,
    out: Path,
    corrections: Path | None = None,
    soft: Annotated[bool, Parameter(negative=())] = False,
    run_id: str | None = None,
) -> None:
    """Make a data set of a label table: train.txt and label.txt, for `mlcls dataset split`.

    Parameters
    ----------
    table
        An output folder of `mlcls label`.
    out
        The new folder.
    corrections
        What people have corrected: an export of Label Studio, JSON or JSON-MIN.
    soft
        All scores as soft labels, for distilling the model that gave them, instead of the labels above the thresholds.
    run_id
        Of this run only. Default: the newest row of each uri.
    """
    from mlcls_ray.datasets.annotations import dataset_of_table
    from mlcls_ray.table.label_table import open_labels

    images = dataset_of_table(open_labels(table, run_id=run_id), corrections, soft, out)
    print(f"{out / 'train.txt'}: {images:,} images")


def sample(
    table: str,
    *,
    out: Path,
    strategy: Literal["uncertain", "diverse", "random"] = "uncertain",
    n: Annotated[int, Parameter(name=["--n", "-n"])] = 500,
    run_id: str | None = None,
) -> None:
    """Pick the images to annotate next, and write them as a list, a sheet to look at, Label Studio tasks and a FiftyOne folder.

    Parameters
    ----------
    table
        An output folder of `mlcls label`.
    out
        A new folder.
    strategy
        uncertain (scores near their thresholds), diverse (unlike each other), or random.
    n
        How many.
    run_id
        Of this run only. Default: the newest row of each uri.
    """
    from mlcls_ray.datasets import annotations
    from mlcls_ray.datasets import sample as sampling
    from mlcls_ray.table.export.base import table_vocabulary
    from mlcls_ray.table.label_table import open_labels

    opened = open_labels(table, run_id=run_id)
    rows = sampling.sample(opened, strategy, n)
    annotations.write_sample(
        rows, table_vocabulary(opened), out, opened.store.s3, f"{len(rows)} images to annotate ({strategy})"
    )
    print(f"{out}: {len(rows):,} images")
