"""`mlcls submit`: a job onto a Ray cluster through Ray Jobs, its log followed to its end.

What travels: the job as one YAML file (every field resolved) and this package's own code, so that driver and workers run what was
tested here. What the package needs (Ray, Paddle …) is on the cluster's machines, or is asked for by `pip`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tenacity

from mlcls_ray.config import LabelJob, dump_job
from mlcls_ray.errors import RunError, UsageError

JOB = "job.yaml"
PACKAGE = Path(__file__).parent.parent
WHILE_STARTING = tenacity.Retrying(
    retry=tenacity.retry_if_exception(lambda error: "No available agent" in str(error)),
    stop=tenacity.stop_after_delay(60),
    wait=tenacity.wait_fixed(1),
    reraise=True,
)
"""A head that has just started takes jobs some seconds after it answers."""
ADDRESSES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")


def submit(job: LabelJob, address: str | None, pip: Sequence[str], follow: bool) -> int:
    """Submit a job; returns its exit code (0 where it is not followed).

    Raises:
        UsageError: the cluster cannot be reached, or refuses the token.
        RunError: the job ended without an exit code (its driver was killed, or could not be started).
    """
    from ray.exceptions import RayError
    from ray.job_submission import JobSubmissionClient

    target = address or next((os.environ[name] for name in ADDRESSES if os.environ.get(name)), None)
    if not target:
        raise UsageError("no cluster: give --address http://HEAD:8265, or set RAY_API_SERVER_ADDRESS")
    logging.getLogger("ray").setLevel(logging.ERROR)  # it tells of each upload
    try:
        client = JobSubmissionClient(target)
    except (ConnectionError, RuntimeError, ValueError, RayError) as error:
        raise _unreachable(target, error) from None
    with tempfile.TemporaryDirectory(prefix="mlcls-submit-") as folder:
        Path(folder, JOB).write_text(dump_job(job), encoding="utf-8")
        runtime: dict[str, Any] = {"working_dir": folder, "py_modules": [str(PACKAGE)]}
        if pip:
            runtime["pip"] = list(pip)
        try:
            submission = WHILE_STARTING.copy()(
                client.submit_job, entrypoint=f"python -m mlcls_ray.cli label --config {JOB}", runtime_env=runtime
            )
        except (ConnectionError, RuntimeError, RayError) as error:
            raise _unreachable(target, error) from None
    print(f"submitted as {submission}; `ray job stop {submission}` ends it", file=sys.stderr, flush=True)
    if not follow:
        print(submission)
        return 0
    asyncio.run(_print_log(client, submission))
    info = client.get_job_info(submission)
    if info.driver_exit_code is None:
        raise RunError(f"job {submission} ended as {info.status}: {info.message or 'no reason told'}")
    return int(info.driver_exit_code)


async def _print_log(client: Any, submission: str) -> None:
    async for lines in client.tail_job_logs(submission):
        print(lines, end="", flush=True)


def _unreachable(target: str, error: Exception) -> UsageError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return UsageError(
        f"the cluster at '{target}' did not take the job: {reason}. Is the address that of its dashboard (port 8265), and is "
        "RAY_AUTH_MODE=token RAY_AUTH_TOKEN=… set?"
    )
