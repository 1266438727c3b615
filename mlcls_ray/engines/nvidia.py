"""NVIDIA's driver and cards, as NVML reports them. Nothing here loads CUDA, and a machine without a driver is no error."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from types import ModuleType
from typing import Any

from pydantic import BaseModel, ConfigDict

from mlcls_ray.errors import short_message

GIB = 1 << 30
MISSING_NVML = "nvidia-ml-py is not installed"
"""`Driver.error` where the Python package is missing, not the driver."""


class Card(BaseModel):
    """One card, or one slice of a card (MIG), as CUDA numbers them."""

    model_config = ConfigDict(frozen=True)

    uuid: str
    name: str
    total_bytes: int | None = None
    free_bytes: int | None = None
    """None where the card shares the memory of its host."""
    compute_capability: tuple[int, int] = (0, 0)
    """(9, 0) is Hopper, (7, 5) Turing."""
    slices: tuple[Card, ...] | None = None
    """The slices that the card is cut into; None: it is whole, or is itself a slice."""

    @property
    def is_slice(self) -> bool:
        return self.uuid.startswith("MIG-")


class Driver(BaseModel):
    """NVIDIA's driver, and the cards that it manages; or the reason why there are none."""

    model_config = ConfigDict(frozen=True)

    version: str = ""
    cuda: tuple[int, int] = (0, 0)
    """The newest CUDA that programs on this driver may use."""
    cards: tuple[Card, ...] = ()
    error: str = ""
    is_installed: bool = True
    """False where NVML's library, which every driver brings, is not there."""


def read_driver(nvml: ModuleType | Any = None) -> Driver:
    """Ask NVML for the driver and its cards. `nvml`: the module, or what stands in for it in a test."""
    if nvml is None:
        try:
            import pynvml
        except ImportError:
            return Driver(error=MISSING_NVML, is_installed=False)
        nvml = pynvml
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return Driver(error=short_message(error), is_installed=error.value != nvml.NVML_ERROR_LIBRARY_NOT_FOUND)
    try:
        number = int(nvml.nvmlSystemGetCudaDriverVersion_v2())
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        return Driver(
            version=str(nvml.nvmlSystemGetDriverVersion()),
            cuda=(number // 1000, number % 1000 // 10),
            cards=tuple(_read_card(nvml, handle) for handle in handles),
        )
    except nvml.NVMLError as error:  # a card that fell off the bus
        return Driver(error=short_message(error))
    finally:
        with suppress(nvml.NVMLError):
            nvml.nvmlShutdown()


def _read_card(nvml: Any, handle: Any, is_slice: bool = False) -> Card:
    total = free = None
    with suppress(nvml.NVMLError):
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        total, free = int(memory.total), int(memory.free)
    capability = (0, 0)
    with suppress(nvml.NVMLError):  # slices have none of their own
        capability = tuple(nvml.nvmlDeviceGetCudaComputeCapability(handle))
    return Card(
        uuid=str(nvml.nvmlDeviceGetUUID(handle)),
        name=str(nvml.nvmlDeviceGetName(handle)),
        total_bytes=total,
        free_bytes=free,
        compute_capability=capability,
        slices=None if is_slice else _read_slices(nvml, handle),
    )


def _read_slices(nvml: Any, handle: Any) -> tuple[Card, ...] | None:
    try:
        if nvml.nvmlDeviceGetMigMode(handle)[0] != nvml.NVML_DEVICE_MIG_ENABLE:
            return None
    except nvml.NVMLError:  # a card that cannot be cut
        return None
    slices = []
    for index in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        with suppress(nvml.NVMLError):  # a place without a slice
            slices.append(_read_card(nvml, nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index), is_slice=True))
    return tuple(slices)


def visible_cards(cards: Sequence[Card], visible: str | None) -> list[Card]:
    """List the cards that CUDA shows a process, in its order.

    Args:
        visible: CUDA_VISIBLE_DEVICES: indices, or the beginnings of UUIDs of cards or slices. The first entry that fits no card ends the
            list. None: all cards.

    Source: CUDA C++ Programming Guide, "CUDA Environment Variables".
    """
    if visible is None:
        return list(cards)
    shown: list[Card] = []
    candidates = [*cards, *(part for card in cards for part in card.slices or ())]
    for entry in (word.strip() for word in visible.split(",")):
        if entry.isdecimal():
            card = cards[int(entry)] if int(entry) < len(cards) else None
        else:
            card = next((card for card in candidates if entry[4:] and card.uuid.startswith(entry)), None)
        if card is None or card in shown:
            break
        shown.append(card)
    return shown
