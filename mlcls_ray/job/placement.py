"""Choose where a job decodes: on the card if the job may, the card can do the models' preprocessing, and its decoder answers."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from mlcls_ray.config import LabelJob
from mlcls_ray.devices import Device
from mlcls_ray.engines.card.decoder import decoder_problem
from mlcls_ray.engines.card.geometry import unsupported_reason
from mlcls_ray.engines.checks.check import RunProbe, run_probe
from mlcls_ray.errors import UsageError, ray_cause
from mlcls_ray.images.preprocess import Preprocess
from mlcls_ray.models.artifact import Model

Probe = Callable[[Device], str | None]
"""Tries the card's decoder; None: it answers, otherwise the reason in one line."""
log = logging.getLogger("mlcls_ray.job")


def try_on_worker(device: Device) -> str | None:
    """Try the card's decoder on the machine and the card where Ray would place a worker. Loads its libraries there."""
    import ray

    # Its process ends with it: in a worker's place it would go on seeing this task's card.
    task = ray.remote(max_calls=1, max_retries=0, num_cpus=0, **device.ray_options())(decoder_problem)
    try:
        problem: str | None = ray.get(task.remote(device.in_worker().index))
    except ray.exceptions.RayError as error:  # a library may end its process, too
        return f"the card's JPEG decoder could not be tried: {ray_cause(error)}"
    return problem


def start_trial(device: Device, run: RunProbe = run_probe) -> Probe:
    """Start to try the card's decoder in a process of its own on this machine; returns a probe that waits for its answer.

    It loads libraries for seconds, in which Ray can start.
    """
    executor = ThreadPoolExecutor(1, thread_name_prefix="decoder")
    outcome = executor.submit(run, ["decoder", str(device.index)], dict(os.environ))
    executor.shutdown(wait=False)
    return lambda _: outcome.result().problem


def choose_placement(job: LabelJob, preprocesses: Sequence[Preprocess], probe: Probe = try_on_worker) -> LabelJob:
    """Return the job with `placement: card`, or as it is. Ray must be there.

    Raises:
        UsageError: the job says `placement: card`, and that cannot be; says why, and the way out.
    """
    if not job.may_decode_on_card:
        return job
    problem = next(filter(None, map(unsupported_reason, preprocesses)), None) or probe(job.device)
    if problem is None:
        return job.model_copy(update={"placement": "card"})
    if job.placement == "card":
        raise UsageError(f"placement 'card': {problem}; or use --placement split, which decodes on the CPUs")
    log.warning("images are decoded on the CPUs, not on the card: %s", problem)
    return job


def preprocess_fingerprint(job: LabelJob, model: Model) -> str:
    """Return the fingerprint of the pixels that a job gives a model. `job`: as if it had this model alone.

    As with `decode: auto`, it says what the job allows, not what each image went through: it is needed before a card can be asked.
    """
    on_card = job.may_decode_on_card and unsupported_reason(model.preprocess) is None
    return model.preprocess_fingerprint(job.decode, on_card)
