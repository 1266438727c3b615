"""`EngineConfig`: the engine of a run, with the trials that led to it. It is written into `run.json`."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from mlcls_ray.devices import Device
from mlcls_ray.field_types import BatchSizeOrAuto, EngineName, EngineOrAuto, Precision, PrecisionOrAuto

CPU = Device("cpu")
BATCH_SIZE, BATCH_SIZE_ON_DEVICES = 16, 64
"""Values of `batch_size: auto`, on a CPU and on other devices, where nothing is tried."""
USUAL_ENGINES: Mapping[str, EngineName] = {"gpu": "onnxruntime"}
"""The engine of a kind of device where nothing is tried; of the other kinds it is Paddle."""


class Trial(BaseModel):
    """One candidate: its rate, and the largest difference of a score to Paddle's in fp32."""

    model_config = ConfigDict(frozen=True)

    engine: EngineName
    precision: Precision
    images_per_s: float = 0.0
    difference: float | None = 0.0
    """None: its scores are not numbers."""
    rejected_because: str = Field(default="", validation_alias=AliasChoices("rejected_because", "refused"))
    """Why it cannot be chosen; empty if it can. Runs before version 0.2 wrote it as `refused`."""


class EngineConfig(BaseModel):
    """The engine, precision and batch size of a run, and why they were chosen."""

    model_config = ConfigDict(frozen=True)

    engine: EngineName
    precision: Precision
    reason: str
    trials: tuple[Trial, ...] = ()
    reference: tuple[tuple[float, ...], ...] = Field(
        default=(), validation_alias=AliasChoices("reference", "golden"), repr=False
    )
    """Paddle's fp32 scores of the golden images, [12 or 4][C]; empty: nothing was tried. Older runs wrote it as `golden`."""
    batch_size: int = BATCH_SIZE

    @property
    def images_per_s(self) -> float | None:
        """The rate of one worker in the chosen engine's trial; None if nothing was tried."""
        for trial in self.trials:
            if (trial.engine, trial.precision) == (self.engine, self.precision):
                return trial.images_per_s or None
        return None


def default_engine(
    engine: EngineOrAuto,
    precision: PrecisionOrAuto,
    reason: str,
    batch_size: int = BATCH_SIZE,
    device: Device = CPU,
) -> EngineConfig:
    """Configure an engine without a trial; `auto` becomes the usual engine of the device, and fp32.

    fp32 on NVIDIA cards too: it differs from Paddle's scores by rounding only, so it needs no trial. TF32 and fp16 are faster, and change a
    label now and then: a trial must have shown that they do not at the run's thresholds. A run that is too short for a trial loses seconds
    by fp32, less than the trial would take.
    """
    return EngineConfig(
        engine=USUAL_ENGINES.get(device.kind, "paddle") if engine == "auto" else engine,
        precision="fp32" if precision == "auto" else precision,
        reason=reason,
        batch_size=batch_size,
    )


def fixed_batch(batch_size: BatchSizeOrAuto, device: Device) -> int:
    """Return a batch size without a trial."""
    if batch_size != "auto":
        return batch_size
    return BATCH_SIZE if device.is_cpu else BATCH_SIZE_ON_DEVICES
