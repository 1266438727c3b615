"""Stages for jobs on faked cards: they run in Ray's workers, so the job's output folder tells them what goes wrong."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import ray

from mlcls_ray.devices import DEVICE_KINDS, Device
from mlcls_ray.errors import DeviceLostError
from mlcls_ray.stages.annotate import Annotate
from mlcls_ray.stages.decode_card import DecodeOnCard
from mlcls_ray.stages.decode_rest import DecodeRest
from mlcls_ray.stages.read import Read
from mlcls_ray.stages.score import Score
from mlcls_ray.stages.select import Select
from mlcls_ray.stages.spec import Batch, RunSpec, Stage
from mlcls_ray.storage.uris import path_of_uri
from tests.stages.faked_card import FakedCard, decoder_on

MEMORY = "memory"
"""A file with the number of rows that a faked card has room for."""
POISON = b"a card that decodes this is lost"


class DecodeOnFakedCard(DecodeOnCard):
    """Decodes in host memory. Each third image is one that the card refuses. Each worker leaves a file, named after its process, and
    each loss another one.
    """

    def __init__(self, spec: RunSpec) -> None:
        self.folder = faults_of(spec)
        memory = self.folder / MEMORY
        room = int(memory.read_text()) if memory.exists() else 1 << 30
        card = FakedCard(refuse=3, rows=room, poison=POISON)
        super().__init__(spec, decoder_on(card, spec.preprocesses))
        assigned = ray.get_runtime_context().get_assigned_resources()
        seen = os.environ[DEVICE_KINDS["gpu"].visible_devices]
        (self.folder / f"worker-{os.getpid()}").write_text(f"{seen} {assigned['GPU']}")

    def __call__(self, batch: Batch) -> Batch:
        try:
            return super().__call__(batch)
        except DeviceLostError:
            (self.folder / f"lost-{os.getpid()}").touch()
            raise


class ScoreOnCpu(Score):
    """Scores on the CPU, whatever the device."""

    def __init__(self, spec: RunSpec) -> None:
        super().__init__(spec._replace(device=Device("cpu")))

    def __call__(self, batch: Any) -> Batch:
        return super().__call__(batch)


CARD_STAGES: tuple[type[Stage], ...] = (Read, DecodeRest, DecodeOnFakedCard, ScoreOnCpu, Select, Annotate)


def faults_of(spec: RunSpec) -> Path:
    """Return the folder that says what goes wrong, and where workers write what they see: beside the job's output."""
    return Path(path_of_uri(spec.job.out) + ".faults")
