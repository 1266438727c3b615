"""Commands that label: `label`, `demo` and `retry`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

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
from mlcls_ray.terminal import Steps, plain, print_plain, showing_steps

if TYPE_CHECKING:
    from mlcls_ray.job.check import CheckedJob
    from mlcls_ray.job.label import Finished, LabelResult

DEMO = Path(__file__).parent.parent / "demo"


def label(
    *inputs: Inputs,
    options: JobFlags = NO_FLAGS,
    config: Config = None,
    print_config: PrintConfig = False,
    verbose: Verbose = False,
    json: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Label images, and write one row for each to a Parquet label table.

    `mlcls label photos --out out --annotate 20`

    Parameters
    ----------
    json
        Print the result as one JSON object on standard output; what is for a person goes to standard error.
    """
    job = load_job(config, job_fields(inputs, options))
    if print_config:
        print(dump_config(job), end="")
        return
    _run(job, verbose, json)


def demo(out: str = "mlcls-demo", *, verbose: Verbose = False) -> None:
    """Label the bundled photographs with the starter model, and write annotated images too; needs no network.

    Parameters
    ----------
    out
        Output folder.
    """
    photographs = tuple(str(path) for path in sorted(DEMO.glob("*.jpg")))
    _run(LabelJob(inputs=photographs, out=out, annotate="all"), verbose)


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

    `mlcls retry out --status timeout,http_5xx`

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


def _run(job: LabelJob, verbose: bool, as_json: bool = False) -> None:
    with showing_steps() as steps:
        steps.say(f"opening the model {', '.join(job.model_sources)}", on_terminal_only=True)  # an error is one line
        from mlcls_ray.job.check import check_job
        from mlcls_ray.job.cluster import disconnect, starts_ray
        from mlcls_ray.job.label import result_of, run_job

        checked, is_here = check_job(job), starts_ray(job.ray_address)
        _say_labeled_before(checked)
        finished = run_job(checked, verbose, steps=steps)
        if is_here:
            disconnect(steps)
        result = result_of(checked, finished)
        _print_summaries(checked, finished, result, steps, as_json)
    if as_json:
        print(result.model_dump_json(exclude={"s3"}))


def _say_labeled_before(checked: CheckedJob) -> None:
    """Say that a new run labels again what an earlier one has labeled."""
    from mlcls_ray.job.resume import labeled_before

    before = None if any(checked.records) else labeled_before(checked.models[0].store, checked.job)
    if before is not None:
        images = f"{before.rows:,} image" + ("" if before.rows == 1 else "s")
        print_plain(
            f"run '{before.run_id}' has labeled {images} of these inputs; --incremental labels only what is new or changed",
            error=True,
        )


def _print_summaries(
    checked: CheckedJob, finished: Finished, result: LabelResult, steps: Steps, is_for_log: bool
) -> None:
    """Print the summary of each model's run, or that there was nothing to do; on standard error if it is for a log."""
    from rich.text import Text

    from mlcls_ray.cli.console import Terminal
    from mlcls_ray.cli.summary import changes_line, print_summary

    job, console = checked.job, Terminal(stderr=is_for_log)
    if not finished.successes:
        steps.pause()
        nothing = "nothing to retry" if job.retry else "nothing new: each input that was found is labeled already"
        console.out(nothing + (f" ({changes_line(result.changes)})" if result.changes else ""))
        return
    for model, success, was_committed in zip(checked.models, finished.successes, checked.committed, strict=True):
        if job.models:
            steps.pause()
            console.rule(Text(plain(model.name)), align="left")
        print_summary(
            model.store,
            success,
            console,
            annotated=job.annotate != "none",
            is_new=not was_committed,
            steps=steps,
            is_for_log=is_for_log,
        )
