"""The command `mlcls`. Thin: it turns words into a job and failures into one line and an exit code.

What a command needs is imported inside it: `mlcls --help` must not wait for Ray and Paddle.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter

from mlcls_ray import __version__
from mlcls_ray.errors import MlclsError, RunInterruptedError, UsageError

FAILED = 1
USAGE = 2

app = App(
    name="mlcls",
    version=__version__,
    help="Label images by the million: PaddlePaddle multi-label classification on Ray, Parquet out.",
    help_format="markdown",
)
models_app = App(name="models", help="The models that have a name: what they are, and what this machine has of them.")
app.command(models_app)


@app.command
def label(
    *inputs: str,
    out: str | None = None,
    config: Path | None = None,
    model: str | None = None,
    device: str | None = None,
    batch_size: int | None = None,
    threshold: Annotated[list[str] | None, Parameter(negative=())] = None,
    annotate: str | None = None,
    run_id: str | None = None,
    limit: int | None = None,
    incremental: Annotated[bool | None, Parameter(negative=())] = None,
    placement: Literal["auto", "split", "fused"] | None = None,
    uri_column: str | None = None,
    max_failures: str | None = None,
    print_config: Annotated[bool, Parameter(negative=())] = False,
    verbose: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Label images and write one row for each to a Parquet label table.

    Parameters
    ----------
    inputs
        Folders (searched recursively), files, globs, lists of uris (.txt, .csv, .parquet), s3:// prefixes, http(s):// uris.
    out
        Output folder, local or s3://. Each run adds runs/RUN_ID to it.
    config
        A YAML file with the same fields and more (see --print-config). Flags override it.
    model
        A name (see `mlcls models`), a Paddle inference folder, or its uri. Default: the starter model that ships with the package.
    device
        cpu, gpu or npu: what the scoring workers run on.
    batch_size
        Images per forward pass.
    threshold
        A number, class=number pairs, or both: `--threshold 0.5,person=0.7`; or a YAML or JSON file. Default: the model's own.
    annotate
        Annotated images: none, all, or a number (a sample of so many).
    run_id
        Name of the run. The same name resumes it: rows that are there are not scored again. Default: what the same command
        left unfinished, else a new run.
    limit
        Take only the first N inputs.
    incremental
        Only inputs that are new or changed since they were labeled into this output (by etag, else size and time), and
        everything when the model changed. Nothing new: exit code 0, nothing is written.
    placement
        Decode and score in one process (fused) or two (split). Default: fused on CPU, split on accelerators.
    uri_column
        The column of a CSV or Parquet list that holds the uris.
    max_failures
        Stop early when more inputs than this fail: a number, or a share as in 1%. Exit code 3.
    print_config
        Print the whole job as YAML, and do nothing.
    verbose
        Show Ray's own messages, and tracebacks.
    """
    from mlcls_ray.config import dump_job, load_job
    from mlcls_ray.labels.thresholds import parse_thresholds

    given: dict[str, Any] = {
        "inputs": inputs or None,
        "out": out,
        "model": model,
        "device": device,
        "batch_size": batch_size,
        "threshold": parse_thresholds(threshold) if threshold else None,
        "annotate": int(annotate) if annotate and annotate.isdecimal() else annotate,
        "run_id": run_id,
        "limit": limit,
        "incremental": incremental,
        "placement": placement,
        "uri_column": uri_column,
        "max_failures": max_failures,
    }
    job = load_job(config, {name: value for name, value in given.items() if value is not None})
    if print_config:
        print(dump_job(job), end="")
        return
    _run(job, verbose)


@app.command
def demo(out: str = "mlcls-demo", *, verbose: Annotated[bool, Parameter(negative=())] = False) -> None:
    """Label the bundled photographs with the starter model, annotated images included; needs no network.

    Parameters
    ----------
    out
        Output folder.
    verbose
        Show Ray's own messages, and tracebacks.
    """
    from mlcls_ray.config import LabelJob

    photographs = Path(__file__).parent / "demo"
    _run(LabelJob(inputs=(str(photographs),), out=out, annotate="all"), verbose)


@app.command
def verify(out: str, *, run_id: str | None = None) -> None:
    """Check the promise: each manifest row in exactly one label row, checksums, schema. Exit code 1 if it is broken.

    Parameters
    ----------
    out
        An output folder of `mlcls label`.
    run_id
        Check this run only. Default: all of them.
    """
    from mlcls_ray.runs.records import run_ids
    from mlcls_ray.runs.verify import verify as find_problems
    from mlcls_ray.storage.store import Store

    store = Store(out)
    problems = find_problems(store, run_id)
    for problem in problems:
        print(problem)
    if problems:
        sys.exit(FAILED)
    runs = 1 if run_id else len(run_ids(store))
    print(f"ok: {runs} run(s), each manifest row in exactly one label row, all checksums match")


@app.command
def status(out: str, *, last: int = 10, json: Annotated[bool, Parameter(negative=())] = False) -> None:
    """Show how the newest runs of an output stand, also one that is going on: rows done, rate, errors by kind, time left.

    Parameters
    ----------
    out
        An output folder of `mlcls label`.
    last
        How many runs to show.
    json
        Print one JSON object a run instead of a table.
    """
    from mlcls_ray.runs.records import run_ids
    from mlcls_ray.runs.report import print_status
    from mlcls_ray.runs.status import run_status
    from mlcls_ray.storage.store import Store

    store = Store(out)
    found = [run_status(store, run_id) for run_id in run_ids(store)[-last:]]
    known = sorted((one for one in found if one is not None), key=lambda one: one.created_at)
    if not known:
        raise UsageError(f"'{out}' holds no runs")
    if json:
        for one in known:
            print(one.model_dump_json())
        return
    print_status(known)


@models_app.default
def models() -> None:
    """List the models that have a name, with mAP on COCO 2017, input size and download size."""
    from rich.console import Console
    from rich.table import Table

    from mlcls_ray.models.cache import cached_folder
    from mlcls_ray.models.zoo import MIRROR_VARIABLE, OFFICIAL, STARTER, STARTER_MAP, STARTER_SIZE

    table = Table(box=None, pad_edge=False)
    for column in ("name", "mAP %", "input", "download", "on this machine"):
        table.add_column(column, justify="right" if column in ("mAP %", "input", "download") else "left")
    table.add_row(STARTER, f"{STARTER_MAP:.1f}*", str(STARTER_SIZE), "–", "ships with the package")
    for spec in OFFICIAL.values():
        where = cached_folder(spec.name)
        cells = (f"{spec.mean_average_precision:.2f}", str(spec.input_size), f"{spec.download_mb:.0f} MB")
        table.add_row(spec.name, *cells, str(where) if where else "no")
    console = Console()
    console.print(table)
    console.print(
        f"\n`mlcls models pull NAME` fetches one; {MIRROR_VARIABLE} replaces the server. "
        "*On a sample of 167 COCO images, not the full set.",
        highlight=False,
    )


@models_app.command
def pull(name: str) -> None:
    """Fetch an official model into this machine's cache.

    Parameters
    ----------
    name
        One of the names that `mlcls models` lists.
    """
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from mlcls_ray.errors import did_you_mean
    from mlcls_ray.models import cache
    from mlcls_ray.models.zoo import OFFICIAL, STARTER

    if name == STARTER:
        print(f"'{STARTER}' ships with the package: nothing to fetch")
        return
    if name not in OFFICIAL:
        raise UsageError(f"unknown model '{name}'{did_you_mean(name, OFFICIAL)}")
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(name, total=None)
        folder = cache.pull(OFFICIAL[name], lambda done, total: progress.update(task, completed=done, total=total))
    print(folder)


def _run(job: Any, verbose: bool) -> None:
    from rich.console import Console

    from mlcls_ray.runs.pipeline import label as run
    from mlcls_ray.runs.report import print_summary
    from mlcls_ray.storage.store import Store

    success = run(job, verbose)
    if success is None:
        print("nothing new: each input that was found is labeled already")
        return
    print_summary(Store(job.out, job.s3), success, Console(), annotated=job.annotate != "none")


def main() -> None:
    """Entry point of the command: exit code 0, 1 (failed), 2 (usage) or 130 (interrupted), never a traceback unless --verbose."""
    try:
        app(exit_on_error=False, print_error=True)
    except CycloptsError:
        _leave(USAGE)
    except MlclsError as error:
        _complain(str(error))
        _leave(error.exit_code)
    except KeyboardInterrupt:
        _complain("interrupted")
        _leave(RunInterruptedError.exit_code)
    except Exception as error:
        if "--verbose" in sys.argv:
            raise
        _complain(
            f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''} (--verbose shows where)"
        )
        _leave(FAILED)


def _complain(message: str) -> None:
    if "--verbose" in sys.argv:
        import traceback

        traceback.print_exc()
    print(f"mlcls: {message}", file=sys.stderr)


def _leave(code: int) -> None:
    sys.stdout.flush()
    sys.exit(code)


if __name__ == "__main__":
    main()
