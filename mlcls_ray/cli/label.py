"""The commands that label."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from mlcls_ray.errors import TRANSIENT


def label(
    *inputs: str,
    out: str | None = None,
    config: Path | None = None,
    model: str | None = None,
    models: str | None = None,
    device: str | None = None,
    engine: Literal["auto", "paddle", "openvino", "onnxruntime", "tensorrt"] | None = None,
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"] | None = None,
    batch_size: Literal["auto"] | int | None = None,
    threshold: Annotated[list[str] | None, Parameter(negative=())] = None,
    annotate: str | None = None,
    embeddings: Annotated[bool | None, Parameter(negative=())] = None,
    format: Literal["parquet", "delta", "iceberg", "lance"] | None = None,
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
    models
        Several, as in a,b: one pass over the images, each of which is read and decoded once. Each model has its output in OUT/NAME.
    device
        cpu, gpu, gpu:0,1, npu …: what the scoring workers run on.
    engine
        What executes the network. Default: auto, the fastest here that gives Paddle's labels; tried once, for 2,000 images or more.
    precision
        fp32, bf16 on CPUs that have it, fp16 on GPUs, or int8 of a model from `mlcls quantize`. Default: auto, as above; never int8.
    batch_size
        Images per forward pass. Default: auto, the fastest, tried with the engine.
    threshold
        A number, class=number pairs, or both: `--threshold 0.5,person=0.7`; or a YAML or JSON file. Default: the model's own.
    annotate
        Annotated images: none, all, or a number (a sample of so many).
    embeddings
        Also a column with the network's pooled features, for `mlcls search --like`.
    format
        Also a Delta, Iceberg or Lance table, in OUT/FORMAT: each run is one commit of it. Default: the Parquet files only.
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
        "models": models and tuple(models.split(",")),
        "device": device,
        "engine": engine,
        "precision": precision,
        "batch_size": batch_size,
        "threshold": parse_thresholds(threshold) if threshold else None,
        "embeddings": embeddings,
        "format": format,
        "annotate": int(annotate) if annotate and annotate.isdecimal() else annotate,
        "run_id": run_id,
        "limit": limit,
        "incremental": incremental,
        "placement": placement,
        "uri_column": uri_column,
        "max_failures": max_failures,
    }
    job = load_job(config, given)
    if print_config:
        print(dump_job(job), end="")
        return
    _run(job, verbose)


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

    photographs = Path(__file__).parent.parent / "demo"
    _run(LabelJob(inputs=(str(photographs),), out=out, annotate="all"), verbose)


def retry(
    out: str,
    *,
    status: Annotated[str, Parameter(negative=())] = ",".join(sorted(TRANSIENT)),
    run_id: str | None = None,
    max_failures: str | None = None,
    verbose: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Try again what failed, in a new run with the settings of the newest one; the table counts the attempts.

    Parameters
    ----------
    out
        An output folder of `mlcls label`.
    status
        Which failures: those whose uri's newest row has one of these statuses. Default: what may pass by itself.
    run_id
        Name of the new run. Default: what the same command left unfinished, else the time.
    max_failures
        Stop early when more inputs than this fail again: a number, or a share as in 1%.
    verbose
        Show Ray's own messages, and tracebacks.
    """
    from mlcls_ray.job.retry import retry_job

    _run(retry_job(out, tuple(status.split(",")), run_id, max_failures), verbose)


def _run(job: Any, verbose: bool) -> None:
    from rich.console import Console

    from mlcls_ray.cli.summary import print_summary
    from mlcls_ray.job.check import check_job
    from mlcls_ray.job.label import run_job

    checked = check_job(job)
    successes = run_job(checked, verbose)
    if not successes:
        print("nothing to retry" if job.retry else "nothing new: each input that was found is labeled already")
        return
    console = Console()
    for model, success in zip(checked.models, successes, strict=True):
        if job.models:
            console.rule(model.name, align="left")
        print_summary(model.store, success, console, annotated=job.annotate != "none")
