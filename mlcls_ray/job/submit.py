"""`mlcls submit`: submit a job to a Ray cluster through Ray Jobs, and follow its log to the end.

The job travels as one YAML file with every field resolved, together with this package's own code, so that driver and workers run what
was tested here. The package's dependencies (Ray, Paddle …) are installed on the cluster's machines, or are named by `pip`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tenacity

from mlcls_ray.config import LabelJob
from mlcls_ray.config_file import dump_config
from mlcls_ray.errors import RunError, RunInterruptedError, UsageError, short_message
from mlcls_ray.terminal import plain

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

JOB_FILE = "job.yaml"
PACKAGE = Path(__file__).parent.parent
ADDRESS_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
UPLOAD_LOGGERS = ("ray", "ray.dashboard.modules.dashboard_sdk")
"""They log each upload with Ray's name for it; the second one sets its own level when it is imported."""
WHILE_STARTING = tenacity.Retrying(
    retry=tenacity.retry_if_exception(lambda error: "No available agent" in str(error)),
    stop=tenacity.stop_after_delay(60),
    wait=tenacity.wait_fixed(1),
    reraise=True,
)
"""A head node that has just started answers some seconds before it takes jobs."""


def submit(job: LabelJob, address: str | None, pip: Sequence[str], follow: bool) -> int:
    """Submit a job and return its exit code; without `follow`, return 0 at once.

    Args:
        address: URL of the cluster's dashboard. None: RAY_API_SERVER_ADDRESS, or RAY_ADDRESS.
        pip: packages to install on the cluster's machines.

    Raises:
        UsageError: the cluster cannot be reached, or refuses the token.
        RunError: the job ended without an exit code: its driver was killed, or could not be started; or its log broke off.
        RunInterruptedError: Ctrl-C. The job goes on.
    """
    from ray.exceptions import RayError
    from ray.job_submission import JobSubmissionClient

    target = address or next((os.environ[name] for name in ADDRESS_VARIABLES if os.environ.get(name)), None)
    if not target:
        raise UsageError("no cluster: give --address http://HEAD:8265, or set RAY_API_SERVER_ADDRESS")
    for name in UPLOAD_LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    print("uploading the job", file=sys.stderr, flush=True)
    try:
        client = JobSubmissionClient(target)
        submission_id = _send(client, job, pip)
    except (ConnectionError, RuntimeError, ValueError, RayError) as error:
        raise UsageError(
            f"the cluster at '{target}' did not take the job: {short_message(error)}. Is the address that of its dashboard "
            "(port 8265), and is RAY_AUTH_MODE=token RAY_AUTH_TOKEN=… set?"
        ) from None
    print(f"submitted as {submission_id}; `ray job stop {submission_id}` ends it", file=sys.stderr, flush=True)
    if not follow:
        print(submission_id)
        return 0
    goes_on = (
        f"job {submission_id} goes on; with --address {shlex.quote(target)}, `ray job logs --follow {submission_id}` shows its log, and "
        f"`ray job stop {submission_id}` ends it"
    )
    try:
        asyncio.run(_print_log(client, submission_id))
        info = client.get_job_info(submission_id)
    except KeyboardInterrupt:
        raise RunInterruptedError(goes_on) from None
    if not info.status.is_terminal():
        raise RunError(f"its log broke off, but {goes_on}")
    if info.driver_exit_code is None:
        raise RunError(f"job {submission_id} ended as {info.status}: {info.message or 'Ray gives no reason'}")
    return int(info.driver_exit_code)


def _send(client: JobSubmissionClient, job: LabelJob, pip: Sequence[str]) -> str:
    """Upload the job and the package, start the job, and return its submission id."""
    with tempfile.TemporaryDirectory(prefix="mlcls-submit-") as folder:
        Path(folder, JOB_FILE).write_text(dump_config(job), encoding="utf-8")
        runtime: dict[str, Any] = {"working_dir": folder, "py_modules": [str(PACKAGE)]}
        if pip:
            runtime["pip"] = list(pip)
        entrypoint = f"python -m mlcls_ray.cli label --config {JOB_FILE}"
        return WHILE_STARTING.copy()(client.submit_job, entrypoint=entrypoint, runtime_env=runtime)


async def _print_log(client: JobSubmissionClient, submission_id: str) -> None:
    async for lines in client.tail_job_logs(submission_id):
        print(plain(lines, keep_lines=True), end="", flush=True)
