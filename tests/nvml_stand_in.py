"""A stand-in for NVML: the functions of pynvml that the package calls, over cards that a test describes, with NVML's own errors."""

from __future__ import annotations

from types import SimpleNamespace
from typing import NamedTuple

import pynvml

GIB = 1 << 30


class StandInCard(NamedTuple):
    """A card or a slice of one, as NVML would report it."""

    name: str = "NVIDIA H200"
    uuid: str = "GPU-00000000-aaaa"
    free: int | None = 139 * GIB
    """Bytes; None: NVML does not say, as on cards that share the memory of their host."""
    total: int = 140 * GIB
    capability: tuple[int, int] | None = (9, 0)
    slices: tuple[StandInCard, ...] | None = None
    """None: the card cannot be cut. Empty: it is in MIG mode, and has no slice."""


class StandInNvml:
    """Answers as the module pynvml does on a machine with such cards."""

    NVMLError = pynvml.NVMLError
    NVML_ERROR_LIBRARY_NOT_FOUND = pynvml.NVML_ERROR_LIBRARY_NOT_FOUND
    NVML_DEVICE_MIG_ENABLE = pynvml.NVML_DEVICE_MIG_ENABLE

    def __init__(
        self,
        *cards: StandInCard,
        driver: str = "580.95.05",
        cuda: int = 13000,
        error: int | None = None,
        lost: int | None = None,
    ) -> None:
        """`error`: NVML's number, with which it does not start. `lost`: the index of a card that fell off the bus."""
        self.cards, self.driver, self.cuda, self.error, self.lost = cards, driver, cuda, error, lost
        self.is_open = False

    def nvmlInit(self) -> None:
        if self.error is not None:
            raise self.NVMLError(self.error)
        self.is_open = True

    def nvmlShutdown(self) -> None:
        self.is_open = False

    def nvmlSystemGetDriverVersion(self) -> str:
        return self.driver

    def nvmlSystemGetCudaDriverVersion_v2(self) -> int:
        return self.cuda

    def nvmlDeviceGetCount(self) -> int:
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> StandInCard:
        if index == self.lost:
            raise self.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return self.cards[index]

    def nvmlDeviceGetName(self, card: StandInCard) -> str:
        return card.name

    def nvmlDeviceGetUUID(self, card: StandInCard) -> str:
        return card.uuid

    def nvmlDeviceGetMemoryInfo(self, card: StandInCard) -> SimpleNamespace:
        if card.free is None:
            raise self.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return SimpleNamespace(total=card.total, free=card.free, used=card.total - card.free)

    def nvmlDeviceGetCudaComputeCapability(self, card: StandInCard) -> tuple[int, int]:
        if card.capability is None:
            raise self.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return card.capability

    def nvmlDeviceGetMigMode(self, card: StandInCard) -> list[int]:
        if card.slices is None:
            raise self.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return [pynvml.NVML_DEVICE_MIG_ENABLE, pynvml.NVML_DEVICE_MIG_ENABLE]

    def nvmlDeviceGetMaxMigDeviceCount(self, card: StandInCard) -> int:
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, card: StandInCard, index: int) -> StandInCard:
        if card.slices is None or index >= len(card.slices):
            raise self.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return card.slices[index]
