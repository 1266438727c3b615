"""Commands about models: `models`, `models pull`, `export` and `quantize`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from mlcls_ray.errors import UsageError
from mlcls_ray.terminal import make_console, print_plain, showing_steps

app = App(name="models")


@app.default
def models(model: str | None = None) -> None:
    """List the named models, with mAP on COCO 2017, input size and download size; or the classes of one model.

    `mlcls models starter`

    Parameters
    ----------
    model
        Name of a model, or a model folder, whose classes to list: the words that it can label images with, one a line.
    """
    if model is not None:
        _print_classes(model)
        return
    from rich.table import Table

    from mlcls_ray.cli.console import Terminal, print_table
    from mlcls_ray.models.cache import cached_folder
    from mlcls_ray.models.zoo import MIRROR_VARIABLE, PUBLISHED, STARTER, STARTER_MAP, STARTER_SIZE

    table = Table(box=None, pad_edge=False)
    for column in ("name", "mAP %", "input", "download", "on this machine"):
        table.add_column(column, justify="right" if column in ("mAP %", "input", "download") else "left")
    table.add_row(STARTER, f"{STARTER_MAP:.1f}*", str(STARTER_SIZE), "–", "ships with the package")
    for name, published in PUBLISHED.items():
        folder = cached_folder(name)
        facts = (
            f"{published.mean_average_precision:.2f}",
            str(published.input_size),
            f"{published.download_mb:.0f} MB",
        )
        table.add_row(name, *facts, str(folder) if folder else "no")
    console = Terminal()
    print_table(console, table)
    console.print(
        f"\n`mlcls models pull NAME` fetches one; {MIRROR_VARIABLE} replaces the server. "
        "*On a sample of 167 COCO images, not the full set.",
        soft_wrap=not console.is_terminal,
    )


def _print_classes(model: str) -> None:
    from mlcls_ray.models.cache import cached_folder, open_model
    from mlcls_ray.models.zoo import PUBLISHED, STARTER

    # All published models know COCO's classes, as the starter does: none is fetched for their names.
    is_elsewhere = model in PUBLISHED and cached_folder(model) is None
    vocabulary = open_model(STARTER if is_elsewhere else model).vocabulary
    for name in vocabulary:
        print_plain(name)
    print_plain(f"{len(vocabulary)} classes of {model}", error=True)


@app.command
def pull(name: str) -> None:
    """Fetch an official model into this machine's cache.

    Parameters
    ----------
    name
        Name of the model, as `mlcls models` lists it.
    """
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from mlcls_ray.errors import suggest
    from mlcls_ray.models import cache
    from mlcls_ray.models.zoo import PUBLISHED, STARTER

    if name == STARTER:
        print(f"'{STARTER}' ships with the package: nothing to fetch")
        return
    if name not in PUBLISHED:
        raise UsageError(f"unknown model '{name}'{suggest(name, PUBLISHED)}")
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=make_console(stderr=True)) as progress:
        task = progress.add_task(name, total=None)
        folder = cache.pull(name, lambda done, total: progress.update(task, completed=done, total=total))
    print(folder)


@app.command
def prepare(model: str) -> None:
    """Fill this machine's cache with what ONNX Runtime needs of a model, on CPUs and NVIDIA GPUs.

    That is the ONNX graphs, and Paddle's scores of the demo photographs, with which engines are compared. A machine without Paddle labels
    with a copy of the cache ($MLCLS_HOME, by default ~/.cache/mlcls_ray).

    Parameters
    ----------
    model
        Name of a model (`mlcls models` lists them), or a model folder.
    """
    with showing_steps() as steps:
        steps.say(f"converting {model}, and scoring the demo photographs")
        from mlcls_ray.engines.reference import prepare as fill
        from mlcls_ray.models.cache import open_model

        paths = fill(open_model(model))
    for path in paths:
        print(path)


def export(
    model: str,
    *,
    out: Path,
    format: Literal["paddle", "onnx", "openvino", "paddle-lite"] = "paddle",
    random_weights: Annotated[bool, Parameter(negative=())] = False,
    seed: int = 0,
    images: Annotated[list[str] | None, Parameter(negative=())] = None,
    network: str | None = None,
    label_list: Path | None = None,
) -> None:
    """Write a model in another format, and compare its scores with Paddle's on real images.

    Parameters
    ----------
    model
        Name of a model (`mlcls models` lists them), a model folder, or trained weights (.pdparams).
    out
        New folder.
    format
        paddle (a folder that PaddleX opens), onnx, openvino, or paddle-lite (docs/edge.md).
    random_weights
        Write an untrained network of that name, for benchmarks and tests.
    seed
        Seed of the random weights.
    images
        Images or folders to compare the scores on. Default: the demo photographs.
    network
        Network that .pdparams weights belong to. Default: the one that their file's name begins with.
    label_list
        File with the classes of .pdparams weights, one per line. Default: COCO's 80 classes.
    """
    from mlcls_ray.engines.export import check_new, export_checkpoint, export_model, export_untrained
    from mlcls_ray.models.cache import open_model
    from mlcls_ray.models.outdated import outdated_note
    from mlcls_ray.predict.inputs import read_inputs

    decoded = None
    if images is not None:
        decoded = [page.image for page in read_inputs(images) if page.image is not None]

    from mlcls_ray.storage.whole import written_whole

    def write_folder(folder: Path) -> str:
        """Write the network in Paddle's format into `folder`; returns what was written."""
        if random_weights:
            export_untrained(model, folder, seed)
            return f"{model} with random weights (seed {seed})"
        checked = export_checkpoint(Path(model), folder, network, label_list, decoded)
        return f"the weights of {model}; largest difference of a score {checked.difference:.1e}, over {checked.images} images"

    is_folder = not (random_weights or model.endswith(".pdparams"))
    if not is_folder and format == "paddle":
        print(f"{out}: {write_folder(out)}")
        return
    with showing_steps() as steps:
        steps.say(f"converting {model}, and comparing its scores with Paddle's")
        if is_folder:
            source, exported = model, export_model(model, format, out, decoded)
        else:
            check_new(out)
            with written_whole(out) as both:
                write_folder(both / "paddle")
                exported = export_model(str(both / "paddle"), format, both / format, decoded)
            source, exported = str(out / "paddle"), exported._replace(folder=out / format)
    if (note := outdated_note(open_model(source))) is not None:
        print(note, file=sys.stderr)
    print(
        f"{exported.folder}: largest difference of a score to Paddle's {exported.difference:.1e}, over {exported.images} images"
    )


def quantize(model: str, *, data: Path, out: Path, max_loss: float = 1.0) -> None:
    """Make an int8 version of a model for x86 CPUs, and keep it only if its labels stay about as good.

    To use it: `mlcls label --model OUT --engine openvino --precision int8`.

    Parameters
    ----------
    model
        Name of a model (`mlcls models` lists them), or a model folder.
    data
        Folder with train.txt (for calibration) and dev.txt (for the comparison), in PaddleClas's multi-label format.
    out
        New folder.
    max_loss
        Points of mAP (of 100) that int8 may lose.
    """
    from mlcls_ray.datasets.formats import read_dataset
    from mlcls_ray.datasets.ground_truth import LABEL_LIST
    from mlcls_ray.engines.quantize import quantize_model
    from mlcls_ray.labels.vocabulary import read_vocabulary
    from mlcls_ray.models.cache import open_model

    opened = open_model(model)
    class_num = len(opened.vocabulary)
    for name in ("train.txt", "dev.txt"):
        if not (data / name).is_file():
            raise UsageError(f"--data: '{data}' has no {name}")
    if (data / LABEL_LIST).is_file() and (classes := read_vocabulary(data / LABEL_LIST)) != opened.vocabulary:
        raise UsageError(
            f"--data: '{data / LABEL_LIST}' names {len(classes)} classes ({', '.join(classes[:3])} …), which are not the {class_num} of "
            f"model '{opened.name}' ({', '.join(opened.vocabulary[:3])} …) in their order"
        )
    calibration, validation = (read_dataset(data / name, class_num) for name in ("train.txt", "dev.txt"))
    with showing_steps() as steps:
        steps.say(f"quantizing with {len(calibration.paths):,} images, and comparing on {len(validation.paths):,}")
        quantized = quantize_model(opened, calibration.paths, validation.paths, validation.targets, out, max_loss)
    print(
        f"{quantized.folder}: mAP {quantized.after:.2f} in int8, {quantized.before:.2f} in fp32, over {quantized.images} images"
    )
