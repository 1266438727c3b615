"""An accelerator whose memory is the host's: what runs on a card's pixels runs on these."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlcls_ray.engines.onnxruntime_device import Accelerator


class HostPixels:
    """Pixels "on the device": they have an address, and give no array."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {**self.values.__array_interface__, "version": 3}

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: slice) -> HostPixels:
        assert isinstance(rows, slice), "a card's pixels are cut into ranges only: anything else would be a copy"
        return HostPixels(self.values[rows])


class HostAccelerator:
    """Counts the batches that were padded on the device."""

    def __init__(self) -> None:
        self.padded: list[int] = []

    def pad(self, pixels: HostPixels, batch: int) -> HostPixels:
        self.padded.append(len(pixels))
        values = np.zeros((batch, *pixels.shape[1:]), np.uint8)
        values[: len(pixels)] = pixels.values
        return HostPixels(values)

    @property
    def accelerator(self) -> Accelerator:
        return Accelerator("CPUExecutionProvider", "cpu", self.pad)  # type: ignore[arg-type]
