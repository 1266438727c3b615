"""ONNX Runtime on an accelerator: what is decided before the card is asked, and the whole way with the CPU in the card's place."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from mlcls_ray.devices import Device
from mlcls_ray.engines.golden import golden_pixels
from mlcls_ray.engines.load import load_engine
from mlcls_ray.engines.onnxruntime import OnnxRuntimeEngine
from mlcls_ray.engines.onnxruntime_device import (
    CUDA,
    DeviceSession,
    bind_pixels,
    check_package,
    check_session,
    cuda_options,
    pad,
)
from mlcls_ray.errors import UsageError
from mlcls_ray.models.artifact import Model
from mlcls_ray.models.convert.device_graph import cached_device_graph
from mlcls_ray.models.features import converted_with_features
from tests.engines.device_pixels import HostAccelerator, HostPixels

GPU = Device("gpu", (0,))


def engine_of(model: Model, precision: str = "fp32", host: HostAccelerator | None = None) -> OnnxRuntimeEngine:
    """The engine for a card, with the CPU in the card's place."""
    return OnnxRuntimeEngine(model, GPU, 1, precision, accelerator=(host or HostAccelerator()).accelerator)


@pytest.fixture(scope="module")
def pixels(tiny_model: Model) -> np.ndarray:
    return golden_pixels(tiny_model)


@pytest.fixture(scope="module")
def expected(tiny_model: Model, pixels: np.ndarray) -> np.ndarray:
    return load_engine("paddle", tiny_model, Device("cpu"), 1).score(pixels)


def test_each_precision_is_what_its_name_says() -> None:
    assert {name: cuda_options(3, name, is_brief=False)["use_tf32"] for name in ("fp32", "tf32", "fp16")} == {
        "fp32": "0",
        "tf32": "1",
        "fp16": "0",
    }
    options = cuda_options(3, "fp16", is_brief=False)
    assert (options["device_id"], options["cudnn_conv_algo_search"], options["prefer_nhwc"]) == ("3", "EXHAUSTIVE", "1")
    assert cuda_options(0, "fp16", is_brief=True)["cudnn_conv_algo_search"] == "HEURISTIC"
    assert all(isinstance(value, str) for value in options.values())


def test_the_package_for_cpus_is_refused() -> None:
    with pytest.raises(
        UsageError, match=r"cannot run on 'gpu:0' in fp16.*pip uninstall -y onnxruntime.*onnxruntime-gpu"
    ):
        check_package(["AzureExecutionProvider", "CPUExecutionProvider"], CUDA, "gpu:0", "fp16")
    check_package(["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"], CUDA, "gpu:0", "fp16")


def test_a_session_that_came_up_on_the_cpu_is_refused() -> None:
    """ONNX Runtime only warns when a CUDA library is missing."""
    with pytest.raises(
        UsageError, match="came up on CPUExecutionProvider instead of CUDAExecutionProvider.*mlcls doctor"
    ):
        check_session(["CPUExecutionProvider"], CUDA, "gpu:0")
    check_session(["CUDAExecutionProvider", "CPUExecutionProvider"], CUDA, "gpu:0")


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_real_session_without_a_card_is_refused(tiny_model: Model) -> None:
    """The package for CPUs takes the name of CUDA's provider with a warning, as the one for GPUs does without a driver."""
    with pytest.raises(UsageError, match="came up on CPUExecutionProvider|cannot start on 'gpu:0'"):
        DeviceSession(onnxruntime, cached_device_graph(tiny_model, "fp32"), GPU, cuda_options(0, "fp32", is_brief=True))


def test_batches_are_filled_up_where_they_lie(pixels: np.ndarray) -> None:
    host = HostAccelerator().accelerator
    assert pad(pixels, len(pixels), host.pad) is pixels
    padded = pad(pixels[:5], 8, host.pad)
    assert isinstance(padded, np.ndarray)
    assert np.array_equal(padded[:5], pixels[:5]) and not padded[5:].any()
    on_device = pad(HostPixels(pixels[:5]), 8, host.pad)
    assert isinstance(on_device, HostPixels)
    assert np.array_equal(on_device.values, padded)


class RecordingBinding:
    """Writes down what is bound."""

    def __init__(self) -> None:
        self.bound: list[tuple[object, ...]] = []

    def bind_cpu_input(self, name: str, array: np.ndarray) -> None:
        self.bound.append(("host", name, array.shape, array.flags.c_contiguous))

    def bind_input(self, *arguments: object) -> None:
        self.bound.append(arguments)


def test_pixels_are_bound_by_their_address_or_from_the_host(pixels: np.ndarray) -> None:
    binding = RecordingBinding()
    bind_pixels(binding, "pixels", pixels[::2], "cuda", 1)
    bind_pixels(binding, "pixels", HostPixels(pixels), "cuda", 1)
    assert binding.bound == [
        ("host", "pixels", (6, 32, 32, 3), True),
        ("pixels", "cuda", 1, np.uint8, [12, 32, 32, 3], pixels.ctypes.data),
    ]
    for wrong in (pixels.transpose(0, 2, 1, 3)[:, ::2], pixels.astype(np.float32)):
        with pytest.raises(ValueError, match="pixels on the device are"):
            bind_pixels(binding, "pixels", HostPixels(wrong), "cuda", 0)


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("tf32", 1e-4), ("fp16", 0.01)])
def test_the_engine_gives_paddles_scores(
    tiny_model: Model, pixels: np.ndarray, expected: np.ndarray, precision: str, tolerance: float
) -> None:
    engine = engine_of(tiny_model, precision)
    assert engine.precision == precision
    engine.warm_up(8)
    for count in (12, 8, 3):
        scores = engine.score(pixels[:count])
        assert (scores.shape, scores.dtype) == ((count, 3), np.float32)
        assert np.abs(scores - expected[:count]).max() <= tolerance


def test_pixels_on_the_device_are_scored_where_they_lie(
    tiny_model: Model, pixels: np.ndarray, expected: np.ndarray
) -> None:
    host = HostAccelerator()
    engine = engine_of(tiny_model, host=host)
    engine.warm_up(6)
    on_device = HostPixels(pixels)
    scores = np.concatenate([engine.score(on_device[:6]), engine.score(on_device[6:])])
    assert np.abs(scores - expected).max() <= 1e-4
    assert host.padded == [], "full batches are not copied"
    assert np.abs(engine.score(on_device[10:]) - expected[10:]).max() <= 1e-4
    assert host.padded == [2]


def test_every_batch_has_a_shape_that_was_warmed_up(tiny_model: Model, pixels: np.ndarray) -> None:
    host = HostAccelerator()
    session = DeviceSession(onnxruntime, cached_device_graph(tiny_model, "fp32"), GPU, {}, host.accelerator)
    session.warm_up(4)
    session.warm_up(8)
    for count in (1, 4, 5, 8):
        session.run(pixels[:count])
    assert session.sizes == {4, 8}
    session.run(pixels)
    assert session.sizes == {4, 8, 12}, "a larger batch is a shape of its own"
    session.warm_up(6)
    assert session.sizes == {4, 6}, "the memory may be too small for larger ones"


def test_features_on_a_card(tiny_model: Model, pixels: np.ndarray) -> None:
    graph = converted_with_features(tiny_model)
    on_cpu = OnnxRuntimeEngine(tiny_model, Device("cpu"), 1, graph=graph)
    engine = OnnxRuntimeEngine(tiny_model, GPU, 1, "fp32", graph, accelerator=HostAccelerator().accelerator)
    assert engine.embedding_size == on_cpu.embedding_size > 0
    engine.warm_up(16)
    for actual, wanted in zip(engine.embed(pixels), on_cpu.embed(pixels), strict=True):
        assert np.abs(actual - wanted).max() <= 1e-4


def test_what_it_cannot_do(tiny_model: Model) -> None:
    for kind, precision, message in (
        ("gpu", "bf16", "no precision 'bf16': use fp32 or tf32 or fp16"),
        ("cpu", "tf32", "no precision 'tf32': use fp32"),
        ("npu", "fp32", "cannot run on 'npu': use cpu or gpu"),
        ("gpu", "tf32", "for gpu install onnxruntime-gpu"),
    ):
        with pytest.raises(UsageError, match=message):
            load_engine("onnxruntime", tiny_model, Device(kind), 1, precision)  # type: ignore[arg-type]
