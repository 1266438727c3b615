"""Commands that label: `label`, `demo` and `retry`."""

from __future__ import annotations

from pathlib import Path

from mlcls_ray.cli.flags import (
    NO_FLAGS,
    Config,
    Inputs,
    JobFlags,
    Output,
    PrintConfig,
    S3Flags,
    Verbose,
    job_fields,
    s3_options,
)
from mlcls_ray.config import LabelJob
from mlcls_ray.config_file import dump_config, load_job
from mlcls_ray.errors import TRANSIENT

DEMO = Path(__file__).parent.parent / "demo"


def label(
    *inputs: Inputs,
    options: JobFlags = NO_FLAGS,
    config: Config = None,
    print_config: PrintConfig = False,
    verbose: Verbose = False,
) -> None:
    """Label images, and write one row for each to a Parquet label table."""
    job = load_job(config, job_fields(inputs, options))
    if print_config:
        print(dump_config(job), end="")
        return
    _run(job, verbose)


def demo(out: str = "mlcls-demo", *, verbose: Verbose = False) -> None:
    """Label the bundled photographs with the starter model, and write annotated images too; needs no network.

    Parameters
    ----------
    out
        Output folder.
    """
    _run(LabelJob(inputs=(str(DEMO),), out=out, annotate="all"), verbose)


def retry(
    out: Output,
    *,
    status: str = ",".join(sorted(TRANSIENT)),
    run_id: str | None = None,
    max_failures: str | None = None,
    s3: S3Flags = NO_FLAGS,
    verbose: Verbose = False,
) -> None:
    """Label again what failed, in a new run with the configuration of the newest one; the table counts the attempts.

    Parameters
    ----------
    status
        Statuses to label again: inputs whose newest row has one of them.
    run_id
        Name of the new run. Default: the run that the same command left unfinished, else the time.
    max_failures
        Stop early when more inputs than this fail again: a number, or a share such as 1%.
    """
    from mlcls_ray.job.retry import retry_job

    _run(retry_job(out, tuple(status.split(",")), run_id, max_failures, s3_options(s3)), verbose)


def _run(job: LabelJob, verbose: bool) -> None:
    from rich.text import Text

    from mlcls_ray.cli.console import Terminal
    from mlcls_ray.cli.summary import print_summary
    from mlcls_ray.job.check import check_job
    from mlcls_ray.job.label import run_job
    from mlcls_ray.terminal import plain

    checked = check_job(job)
    successes = run_job(checked, verbose)
    if not successes:
        print("nothing to retry" if job.retry else "nothing new: each input that was found is labeled already")
        return
    console = Terminal()
    for model, success in zip(checked.models, successes, strict=True):
        if job.models:
            console.rule(Text(plain(model.name)), align="left")
        print_summary(model.store, success, console, annotated=job.annotate != "none")
