"""The commands of an operator: every night, and on a cluster."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

WEBHOOK_VARIABLE = "MLCLS_WEBHOOK"


def nightly(
    config: Path,
    *,
    logs: Path = Path("logs"),
    keep: str | None = None,
    webhook: str | None = None,
    verbose: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Label what is new, as a cron line does: leased, logged, one JSON line of summary, and the job's exit code.

    Parameters
    ----------
    config
        A YAML file of `mlcls label`, with inputs and out.
    logs
        Folder for mlcls.log (rotated, 60 MB at most) and summary.jsonl.
    keep
        Afterwards remove runs older than this of which each row has a newer one: 30d, 8w.
    webhook
        URL that is told of a night that failed. Default: the variable MLCLS_WEBHOOK.
    verbose
        Ray's own messages into the log, and tracebacks.
    """
    from mlcls_ray.job.nightly import run_nightly

    summary = run_nightly(config, logs, keep, webhook or os.environ.get(WEBHOOK_VARIABLE), verbose)
    print(summary.model_dump_json())
    sys.exit(summary.exit_code)


def submit(
    config: Path,
    *inputs: str,
    out: str | None = None,
    run_id: str | None = None,
    address: str | None = None,
    pip: Annotated[list[str] | None, Parameter(negative=())] = None,
    follow: bool = True,
) -> None:
    """Run a job on a Ray cluster: submit it, follow its log, and exit with its exit code. RAY_AUTH_TOKEN is the cluster's token.

    Parameters
    ----------
    config
        A YAML file of `mlcls label`. Paths in it are the cluster's.
    inputs
        Instead of the file's.
    out
        Instead of the file's.
    run_id
        Name of the run: submitted again under the same name, the job goes on.
    address
        The dashboard of the cluster, http://HEAD:8265. Default: RAY_API_SERVER_ADDRESS.
    pip
        Packages that the cluster's machines lack.
    follow
        Wait for the job, printing its log; --no-follow prints its id and leaves.
    """
    from mlcls_ray.config import load_job
    from mlcls_ray.job.submit import submit as send

    given = {"inputs": inputs or None, "out": out, "run_id": run_id}
    job = load_job(config, given)
    sys.exit(send(job, address, pip or (), follow))
