"""Checks of an NVIDIA card, from the driver up to the JPEG decoder. Each takes what it looks at, so that every state can be tested."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence

from mlcls_ray.devices import Device
from mlcls_ray.engines.checks.check import Check, Outcome, Probes
from mlcls_ray.engines.nvidia import GIB, MISSING_NVML, Card, Driver, visible_cards

INSTALL = "pip install 'mlcls-ray[gpu]'"
REPLACE = f"pip uninstall -y onnxruntime onnxruntime-gpu && {INSTALL}"
"""Puts the build of ONNX Runtime for cards in the place of the one for CPUs."""
OTHER_BUILDS = (
    "onnxruntime",
    "onnxruntime-openvino",
    "onnxruntime-rocm",
    "onnxruntime-migraphx",
    "onnxruntime-training",
)
"""Builds of ONNX Runtime that own the same files as onnxruntime-gpu."""
CUDA, DRIVER = 13, 580
"""CUDA that the packages of the extra `gpu` are built for, and the first driver that has it."""
CUDA_ON_3_10, DRIVER_ON_3_10 = 12, 525
"""The same for Python 3.10, whose newest onnxruntime-gpu is older."""
MIN_CAPABILITY = (7, 5)
"""Turing. CUDA 13 and the builds of ONNX Runtime have nothing for older cards."""
NEEDED_BYTES = 2 * GIB
"""Free memory of a card without which no job is started: CUDA, ONNX Runtime, a small network and its batches."""
VARIABLE = "CUDA_VISIBLE_DEVICES"
PACKAGE_OF = {
    "libcublas": "nvidia-cublas",
    "libcudnn": "nvidia-cudnn-cu13",
    "libcudart": "nvidia-cuda-runtime",
    "libcufft": "nvidia-cufft",
    "libcurand": "nvidia-curand",
    "libnvrtc": "nvidia-cuda-nvrtc",
    "libnvJitLink": "nvidia-nvjitlink",
    "libnvjpeg": "nvidia-nvjpeg",
}
"""The package that brings a CUDA library, by the beginning of the library's name."""
NO_LIBRARY = re.compile(r"(lib\w+)\S*\.so[\d.]*(?=: cannot open shared object)")
LOOK = "nvidia-smi shows whether the card answers"


def nvidia_checks(device: Device, probes: Probes, tries_network: bool = True) -> Iterator[Check]:
    """Check that networks run on the cards that the device names. Ends at the first check that fails: the next ones build on it.

    Args:
        tries_network: run one on the card in another process, which takes seconds.
    """
    driver = probes.driver()
    steps: list[Callable[[], Check]] = [
        lambda: check_driver(driver),
        lambda: check_cards(device, driver, probes.environ),
        lambda: check_onnxruntime(probes.version),
    ]
    if tries_network:
        words = ["session", "CUDAExecutionProvider", str(device.index)]
        steps.append(lambda: check_session(probes.run(words, probes.environ)))
    for step in steps:
        check = step()
        yield check
        if check.state != "ok":
            return


def decoder_check(device: Device, probes: Probes) -> Check:
    """Check that the card decodes JPEGs. Optional: without it the CPUs decode."""
    missing = check_decoder_packages(probes.version)
    if missing is not None:
        return missing
    return check_decoder(probes.version, probes.run(["decoder", str(device.index)], probes.environ))


def needed_cuda() -> tuple[int, int]:
    """The major version of CUDA that this Python's packages need, and the first driver that has it."""
    return (CUDA, DRIVER) if sys.version_info >= (3, 11) else (CUDA_ON_3_10, DRIVER_ON_3_10)


def check_driver(driver: Driver) -> Check:
    cuda, first_driver = needed_cuda()
    name = "NVIDIA driver"
    if driver.error == MISSING_NVML:
        return Check(name=name, state="missing", message=MISSING_NVML, way_out="pip install nvidia-ml-py")
    container = "in a container: docker run --gpus all"
    if not driver.is_installed:
        way_out = (
            f"install NVIDIA's driver {first_driver} or newer (docs/hardware.md); {container}; or use --device cpu"
        )
        return Check(name=name, state="missing", message="no NVIDIA driver on this machine", way_out=way_out)
    if driver.error:
        message = f"the NVIDIA driver does not answer ({driver.error})"
        return Check(
            name=name, state="broken", message=message, way_out="sudo modprobe nvidia, else restart the machine"
        )
    if not driver.cards:
        message = f"the NVIDIA driver {driver.version} manages no card"
        return Check(name=name, state="missing", message=message, way_out=f"nvidia-smi -L lists them; {container}")
    if driver.cuda[0] < cuda:
        message = (
            f"the NVIDIA driver {driver.version} has CUDA {driver.cuda[0]}.{driver.cuda[1]}, and CUDA {cuda} is needed"
        )
        return Check(name=name, state="broken", message=message, way_out=f"install driver {first_driver} or newer")
    return Check(name=name, state="ok", message=f"{driver.version}, for CUDA up to {driver.cuda[0]}.{driver.cuda[1]}")


def check_cards(device: Device, driver: Driver, environ: Mapping[str, str]) -> Check:
    """Check the cards that a job would use: those that exist, whole or a named slice, new enough, with room."""
    visible = environ.get(VARIABLE)
    shown = visible_cards(driver.cards, visible)
    setting = f" that {VARIABLE}={visible} shows" if visible is not None else ""

    def broken(message: str, way_out: str) -> Check:
        return Check(name="cards", state="broken", message=message, way_out=way_out)

    if not shown:
        return broken(f"{VARIABLE}={visible} shows none of the {len(driver.cards)} card(s)", f"unset {VARIABLE}")
    indices = device.indices or tuple(range(len(shown)))
    absent = [index for index in indices if index >= len(shown)]
    if absent:
        names = ", ".join(f"gpu:{index}" for index in range(len(shown)))
        return broken(f"there is no card {absent[0]} among the {len(shown)} card(s){setting}", f"use {names}")
    used = {index: shown[index] for index in indices}
    for index, card in used.items():
        if card.slices is not None:
            return broken(*_unnamed_slices(index, card))
        if (0, 0) < card.compute_capability < MIN_CAPABILITY:
            major, minor = card.compute_capability
            message = (
                f"card {index} ({card.name}) has compute capability {major}.{minor}; 7.5 (Turing) or newer is needed"
            )
            return broken(message, "use another card, or --device cpu")
        if card.free_bytes is not None and card.free_bytes < NEEDED_BYTES:
            return broken(*_full(index, card, shown))
    return Check(name="cards", state="ok", message=", ".join(_describe(index, card) for index, card in used.items()))


def _unnamed_slices(index: int, card: Card) -> tuple[str, str]:
    """The message about a card that is cut into slices, of which none is named."""
    if not card.slices:
        message = f"card {index} ({card.name}) is in MIG mode and has no slice"
        return message, "sudo nvidia-smi mig -cgi 0 -C makes one, sudo nvidia-smi -mig 0 ends MIG mode"
    message = f"card {index} ({card.name}) is cut into {len(card.slices)} MIG slice(s), and none is named"
    return message, f"export {VARIABLE}={','.join(part.uuid for part in card.slices)}"


def _full(index: int, card: Card, shown: Sequence[Card]) -> tuple[str, str]:
    message = f"card {index} ({card.name}) is full: {_room(card)} free, and {NEEDED_BYTES / GIB:.0f} GiB are needed"
    others = [f"gpu:{other}" for other, room in enumerate(shown) if room.free_bytes and room.free_bytes >= NEEDED_BYTES]
    return message, "nvidia-smi shows who uses it" + (f"; or use {', '.join(others)}" if others else "")


def _room(card: Card) -> str:
    if card.free_bytes is None or card.total_bytes is None:
        return "memory shared with the host"
    return f"{card.free_bytes / GIB:.1f} of {card.total_bytes / GIB:.1f} GiB"


def _describe(index: int, card: Card) -> str:
    return f"gpu:{index} {card.name} ({_room(card)}{' free' if card.free_bytes is not None else ''})"


def check_onnxruntime(version: Callable[[str], str]) -> Check:
    """Check that the build of ONNX Runtime for cards is installed, and no other beside it: they own the same files."""
    build, others = version("onnxruntime-gpu"), [name for name in OTHER_BUILDS if version(name)]
    replace = (
        REPLACE if others == ["onnxruntime"] else f"pip uninstall -y {' '.join(others)} onnxruntime-gpu && {INSTALL}"
    )
    name = "onnxruntime-gpu"
    if build and others:
        message = f"{others[0]} {version(others[0])} and onnxruntime-gpu {build} are both installed, and one has overwritten the other"
        return Check(name=name, state="broken", message=message, way_out=replace)
    if others:
        message = f"{others[0]} {version(others[0])} is installed, which cannot use a card"
        return Check(name=name, state="missing", message=message, way_out=replace)
    if not build:
        return Check(name=name, state="missing", message="onnxruntime-gpu is not installed", way_out=INSTALL)
    return Check(name=name, state="ok", message=build)


def check_session(outcome: Outcome) -> Check:
    """Check what the session probe said."""
    if outcome.code == 0 and outcome.answer == "CUDAExecutionProvider":
        return Check(name="network on the card", state="ok", message="ONNX Runtime ran one on CUDA")
    message, way_out = explain(outcome.reason)
    return Check(name="network on the card", state="broken", message=message, way_out=way_out)


def explain(reason: str, cuda: int | None = None) -> tuple[str, str]:
    """Say what an error of CUDA's means, and what to do.

    Args:
        reason: its line, as a library wrote it.
        cuda: the major version of CUDA; None: the one for this Python.
    """
    library = NO_LIBRARY.search(reason)
    if library:
        name = library[0].rpartition("/")[2]
        if name.startswith("libcuda.so"):
            return f"the driver's library {name} is missing", "in a container: docker run --gpus all"
        package = next((value for beginning, value in PACKAGE_OF.items() if name.startswith(beginning)), None)
        if package and (cuda or needed_cuda()[0]) == CUDA_ON_3_10:
            package = f"{package.removesuffix('-cu13')}-cu12"
        way_out = f"pip install --force-reinstall --no-deps {package}" if package else INSTALL
        return f"the CUDA library {name} is missing", way_out
    for pattern, message, way_out in KNOWN_ERRORS:
        if re.search(pattern, reason, re.IGNORECASE):
            return message, way_out
    return f"ONNX Runtime does not run on CUDA: {reason[-200:]}", LOOK


KNOWN_ERRORS = (
    (
        r"out of memory|CUDA(_ERROR| failure| error)[ :]*2\b",
        "the card's memory is full",
        "nvidia-smi shows who uses it",
    ),
    (
        r"not yet initialized|\b802\b",
        "the card's fabric manager does not run",
        "sudo systemctl start nvidia-fabricmanager",
    ),
    (
        r"driver version is insufficient|\b(35|803|804)\b",
        "the NVIDIA driver is too old for this CUDA",
        f"install driver {DRIVER} or newer",
    ),
    (r"no CUDA-capable device", "CUDA finds no card", f"unset {VARIABLE}, or name a card that nvidia-smi -L lists"),
    (r"no kernel image", "this build has no code for this card", "use a card of compute capability 7.5 or newer"),
    (r"\b(719|999)\b|unspecified launch failure", "the card does not answer CUDA", f"{LOOK}; restart the machine"),
)
"""Errors of CUDA by a pattern in their text, what each means here, and the way out. Source: CUDA Runtime API, cudaError_t."""


def check_decoder_packages(version: Callable[[str], str]) -> Check | None:
    """Say which package the card's decoder lacks; None: it has all."""
    suffixes = (("cu13", "13x"), ("cu12", "12x"))
    for codec, arrays in ((f"nvidia-nvimgcodec-{cuda}", f"cupy-cuda{toolkit}") for cuda, toolkit in suffixes):
        if version(codec) and version(arrays):
            return None
    message = "nvImageCodec or CuPy is not installed: the CPUs decode"
    return Check(name=DECODER, state="missing", message=message, way_out=INSTALL, is_required=False)


DECODER = "JPEGs on the card"


def check_decoder(version: Callable[[str], str], outcome: Outcome) -> Check:
    """Check what the decoder probe said. nvImageCodec without nvJPEG decodes on the CPU without a word."""
    problem = outcome.problem
    if problem is None:
        return Check(name=DECODER, state="ok", message="the decoder answered", is_required=False)
    if not version("nvidia-nvjpeg") and not version("nvidia-nvjpeg-cu12"):
        message = "nvImageCodec is installed without nvJPEG: the CPUs decode"
        way_out = f"pip install 'nvidia-nvimgcodec-cu{needed_cuda()[0]}[nvjpeg]'"
        return Check(name=DECODER, state="broken", message=message, way_out=way_out, is_required=False)
    message = f"the CPUs decode, because the card's decoder does not answer: {problem[-200:]}"
    return Check(name=DECODER, state="broken", message=message, way_out=LOOK, is_required=False)
