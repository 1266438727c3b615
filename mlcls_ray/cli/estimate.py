"""`mlcls probe`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter


def probe(
    *inputs: str,
    config: Path | None = None,
    model: str | None = None,
    device: str | None = None,
    seconds: float = 60.0,
    json: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Measure a sample of the images on this machine: what bounds the job, how long all of them would take, and what to change.

    Parameters
    ----------
    inputs
        As of `mlcls label`.
    config
        The YAML file of the job.
    model
        A name (see `mlcls models`) or a model folder. Default: the starter model.
    device
        What scores.
    seconds
        How long to measure, at most; some more for listing and for loading the model.
    json
        Print one JSON object.
    """
    from mlcls_ray.config import load_job
    from mlcls_ray.job.estimate import estimate

    given: dict[str, Any] = {"inputs": inputs or None, "model": model, "device": device}
    job = load_job(config, given)
    found = estimate(job, seconds)
    if json:
        print(found.model_dump_json())
        return
    print(f"{found.listed:,} images; {found.sampled} sampled, {found.failed} of them failed")
    print(
        f"fetch {found.fetch_per_s:,.0f}/s for one worker, decode {found.decode_ms:.2f} ms, score {found.score_ms:.2f} ms",
        end="",
    )
    print(f" ({found.model}, {found.engine} {found.precision})")
    here = found.per_core_s * found.cores
    print(f"{found.bound}-bound: {found.per_core_s:,.1f} images/s per core, {here:,.0f}/s on {found.cores} cores")
    print(f"all of them: {_duration(found.eta_s)} here, {found.core_hours:,.2f} core hours")
    print(found.advice)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
