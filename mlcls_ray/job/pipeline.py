"""Label a manifest. A job is a list of stages, and its placement is where the list is cut:

    manifest → Read → Decode → Score → Select → Annotate → fragments

    fused    [Read  Decode  Score  Select  Annotate]                       CPUs
    split    [Read  Decode] → [Score  Select  Annotate]                    accelerators; pixels travel
    card     [Read  DecodeRest] → [DecodeOnCard  Score  Select  Annotate]  NVIDIA cards; encoded images travel

A pool of workers runs each part of the list. `supervise` handles failures, lost nodes and Ctrl-C meanwhile; `label` is what comes
before and after.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import ray.data

from mlcls_ray.job.own_ray import own_execution
from mlcls_ray.job.plan import Run
from mlcls_ray.job.pools import Pool
from mlcls_ray.job.sink import Fragments, LabelSink
from mlcls_ray.job.source import read_manifest
from mlcls_ray.job.workers import Worker
from mlcls_ray.stages.annotate import Annotate
from mlcls_ray.stages.decode import Decode
from mlcls_ray.stages.decode_card import DecodeOnCard
from mlcls_ray.stages.decode_rest import DecodeRest
from mlcls_ray.stages.read import Read
from mlcls_ray.stages.score import Score
from mlcls_ray.stages.select import Select
from mlcls_ray.stages.spec import Stage

STAGES: tuple[type[Stage], ...] = (Read, Decode, Score, Select, Annotate)
CARD_STAGES: tuple[type[Stage], ...] = (Read, DecodeRest, DecodeOnCard, Score, Select, Annotate)
"""The stages where a card decodes: it takes most JPEGs, and the CPUs decode the rest."""
CUTS: Mapping[str, tuple[int, ...]] = {"fused": (), "split": (2,), "card": (2,)}
"""The places where each placement cuts the list of stages."""


def label_rows(
    run: Run, monitor: Any, stages: Sequence[type[Stage]] | None = None, worker: type[Worker] = Worker
) -> Fragments:
    """Label the rows of the manifest that are neither in a fragment nor copies; returns the fragments of each model.

    Args:
        monitor: handle of the `RunMonitor`, which can end it early.
        stages: the classes to run, in place of the placement's own.
        worker: the class that runs them.
    """
    stages = stages or (CARD_STAGES if run.pools.placement == "card" else STAGES)
    if run.job.annotate == "none":
        stages = [stage for stage in stages if not issubclass(stage, Annotate)]
    spec = run.worker_spec()
    rows = read_manifest(run.store, run.run_id, run.skip, run.pools.block_rows)
    for part, pool in zip(cut(stages, CUTS[run.pools.placement]), run.pools.pools, strict=True):
        rows = map_blocks(rows, pool, worker, (part, spec, monitor))
    sink = LabelSink(run.stores, run.run_id, run.attempt, run.pools.rows_per_fragment)
    with own_execution():
        rows.write_datasink(sink)
    return sink.fragments


def cut(stages: Sequence[type[Stage]], places: Sequence[int]) -> list[Sequence[type[Stage]]]:
    """Cut a list of stages into parts."""
    borders = [0, *places, len(stages)]
    return [stages[start:end] for start, end in pairwise(borders)]


def map_blocks(
    rows: ray.data.Dataset, pool: Pool, worker: type[Worker], arguments: tuple[Any, ...]
) -> ray.data.Dataset:
    """Run a pool of workers over the blocks of a dataset."""
    return rows.map_batches(
        worker,
        fn_constructor_args=arguments,
        batch_size=pool.batch_rows,
        batch_format="pyarrow" if pool.batch_rows is None else "numpy",
        compute=ray.data.ActorPoolStrategy(
            size=pool.workers, max_concurrent_calls_per_actor=pool.calls, enable_true_multi_threading=pool.calls > 1
        ),
        num_cpus=pool.cpus,
        **(pool.device.ray_options(pool.share) if pool.device else {}),
    )
