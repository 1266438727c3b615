"""Commands of an operator: `estimate`, `nightly` and `submit`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from mlcls_ray.cli.flags import NO_FLAGS, Config, Inputs, JobFlags, Verbose, job_fields
from mlcls_ray.config_file import load_job
from mlcls_ray.storage.inputs.left_out import name_left_out
from mlcls_ray.terminal import plain, print_plain, showing_steps

WEBHOOK_VARIABLE = "MLCLS_WEBHOOK"


def estimate(
    *inputs: Inputs,
    options: JobFlags = NO_FLAGS,
    config: Config = None,
    seconds: float = 60.0,
    json: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Measure a sample of the images on this machine: what limits the job, how long all images would take, and what to change.

    `mlcls estimate s3://bucket/photos --model PP-LCNet_x1_0_ML`

    Parameters
    ----------
    seconds
        Longest time to measure, without listing the inputs and loading the model.
    json
        Print one JSON object.
    """
    with showing_steps() as steps:
        steps.say("opening the model", on_terminal_only=True)  # an error is one line
        from mlcls_ray.cli.summary import duration
        from mlcls_ray.job.estimate import estimate as measure

        measured = measure(load_job(config, job_fields(inputs, options)), seconds, steps)
    if json:
        print(measured.model_dump_json())
        return
    print(f"{measured.listed:,} images; {measured.sampled} sampled, {measured.failed} of them failed")
    if measured.left_out:
        print(f"left out by their names, not read: {plain(name_left_out(measured.left_out))}")
    print(
        f"fetch {measured.fetch_per_s:,.0f}/s for one worker, decode {measured.decode_ms:.2f} ms, score {measured.score_ms:.2f} ms "
        f"({measured.model}, {measured.engine} {measured.precision})"
    )
    per_s = measured.per_core_s * measured.cores
    print(
        f"{measured.bound}-bound: {measured.per_core_s:,.1f} images/s per core, {per_s:,.0f}/s on {measured.cores} cores"
    )
    print(f"all of them: {duration(measured.eta_s)} here, {measured.core_hours:,.2f} core hours")
    print(measured.advice)


def nightly(
    config: Path,
    *,
    logs: Path = Path("logs"),
    keep: str | None = None,
    webhook: str | None = None,
    fail_on_drift: Annotated[bool, Parameter(negative=())] = False,
    verbose: Verbose = False,
) -> None:
    """Label what is new, as a cron job: with a lease, a log, a JSON line of summary, and the run's exit code.

    `mlcls nightly photos.yaml --logs /var/log/mlcls --keep 30d`

    Parameters
    ----------
    config
        YAML file of `mlcls label`, with inputs and out.
    logs
        Folder for mlcls.log (rotated, 60 MB at most) and summary.jsonl.
    keep
        Afterwards remove the runs that are older than this and whose rows all have a newer row: 30d, 8w. Default: remove none.
    webhook
        URL to notify of a night that failed. Default: the variable MLCLS_WEBHOOK.
    fail_on_drift
        End with exit code 5, and notify the webhook, where labels or errors have moved from those of the nights before. The summary says
        it in any case.
    """
    from mlcls_ray.job.nightly import run_nightly

    summary = run_nightly(config, logs, keep, webhook or os.environ.get(WEBHOOK_VARIABLE), verbose, fail_on_drift)
    print_plain(summary.model_dump_json())
    sys.exit(summary.exit_code)


def submit(
    config: Path,
    *inputs: Inputs,
    options: JobFlags = NO_FLAGS,
    address: str | None = None,
    pip: Annotated[list[str] | None, Parameter(negative=())] = None,
    follow: bool = True,
) -> None:
    """Submit a job to a Ray cluster, follow its log, and exit with its exit code. RAY_AUTH_TOKEN is the cluster's token.

    `mlcls submit job.yaml --address http://HEAD:8265 --run-id spring`

    Parameters
    ----------
    config
        YAML file of `mlcls label`, which flags override. Paths in it are the cluster's.
    address
        Dashboard of the cluster, http://HEAD:8265. Default: the variable RAY_API_SERVER_ADDRESS.
    pip
        Packages that the cluster's machines lack.
    follow
        Wait for the job and print its log. --no-follow prints the job's id and ends.
    """
    from mlcls_ray.job.submit import submit as submit_job

    sys.exit(submit_job(load_job(config, job_fields(inputs, options)), address, pip or (), follow))
