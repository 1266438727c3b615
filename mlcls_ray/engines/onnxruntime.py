"""ONNX Runtime: on CPUs in fp32; on NVIDIA cards (package onnxruntime-gpu) in fp32, TF32 and fp16, see `onnxruntime_device`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mlcls_ray.devices import Device
from mlcls_ray.engines.base import EngineSpec, Pixels, check_scores, unit_length
from mlcls_ray.engines.onnxruntime_device import CUDA, Accelerator, DeviceSession, check_package, cuda_options
from mlcls_ray.errors import UsageError
from mlcls_ray.field_types import Precision
from mlcls_ray.images.preprocess import to_tensor
from mlcls_ray.models.artifact import Model
from mlcls_ray.models.convert.device_graph import cached_device_graph
from mlcls_ray.models.convert.onnx import MISSING_RUNTIME, onnx_graph

PRECISIONS: Mapping[str, tuple[Precision, ...]] = {"cpu": ("fp32",), "gpu": ("fp32", "tf32", "fp16")}
"""Precisions by kind of device. TF32 is the fp32 graph, whose convolutions and products round their inputs to 10 bits."""


class OnnxRuntimeEngine:
    """A session over the converted model."""

    name = "onnxruntime"
    spec: ClassVar = EngineSpec(candidates=PRECISIONS, packages=("onnxruntime", "onnxruntime-gpu"))

    def __init__(
        self,
        model: Model,
        device: Device,
        threads: int,
        precision: str = "fp32",
        graph: Path | None = None,
        is_brief: bool = False,
        accelerator: Accelerator = CUDA,
    ) -> None:
        """Load the model, or the ONNX file `graph` instead; `embed` needs a graph with features.

        Args:
            accelerator: how ONNX Runtime reaches a device that is not a CPU. Tests pass the CPU in its place.

        Raises:
            UsageError: ONNX Runtime is not installed, cannot use the device or came up on another, or does not have the precision.
            RunError: the model cannot be converted.
        """
        try:
            import onnxruntime
        except ImportError:
            raise UsageError(f"engine onnxruntime {MISSING_RUNTIME}") from None
        if device.kind not in PRECISIONS:
            raise UsageError(f"engine onnxruntime cannot run on '{device}': use cpu or gpu")
        if precision not in PRECISIONS[device.kind]:
            usable = " or ".join(PRECISIONS[device.kind])
            raise UsageError(f"engine onnxruntime has no precision '{precision}': use {usable}")
        self.precision: str = precision
        self._preprocess = model.preprocess
        self._class_num = len(model.vocabulary)
        self._on_device = (
            None if device.is_cpu else _open(onnxruntime, model, device, precision, graph, is_brief, accelerator)
        )
        if self._on_device is None:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads
            options.log_severity_level = 3
            self._session = onnxruntime.InferenceSession(
                str(graph or onnx_graph(model)), options, providers=["CPUExecutionProvider"]
            )
        outputs = self._on_device.outputs if self._on_device else self._session.get_outputs()
        self.embedding_size = int(outputs[1].shape[1]) if len(outputs) > 1 else 0

    def warm_up(self, batch_size: int) -> None:
        if self._on_device:
            self._on_device.warm_up(batch_size)
            return
        width, height = self._preprocess.input_size
        # On a CPU little depends on the batch size, and a large network takes seconds for one image.
        self.score(np.zeros((1, height, width, 3), dtype=np.uint8))

    def score(self, pixels: Pixels) -> np.ndarray:
        return self._run(pixels)[0]

    def embed(self, pixels: Pixels) -> tuple[np.ndarray, np.ndarray]:
        scores, features = self._run(pixels)
        return scores, unit_length(features)

    def _run(self, pixels: Pixels) -> list[np.ndarray]:
        """Return the outputs of the graph."""
        if self._on_device:
            outputs = self._on_device.run(pixels)
        else:
            assert isinstance(pixels, np.ndarray)  # pixels on a card come to the workers of a card only
            tensor = to_tensor(pixels, self._preprocess)
            outputs = self._session.run(None, {self._session.get_inputs()[0].name: tensor})
        check_scores(outputs[0], len(pixels), self._class_num)
        return outputs


def _open(
    onnxruntime: Any,
    model: Model,
    device: Device,
    precision: str,
    graph: Path | None,
    is_brief: bool,
    accelerator: Accelerator,
) -> DeviceSession:
    """Open a session on an accelerator. The CUDA libraries of pip's packages are loaded first; the loader would not find them."""
    check_package(onnxruntime.get_available_providers(), accelerator, str(device), precision)
    if accelerator is CUDA:
        onnxruntime.preload_dlls()
    path = cached_device_graph(model, "fp16" if precision == "fp16" else "fp32", graph)
    options = cuda_options(device.index, precision, is_brief) if accelerator is CUDA else {}
    return DeviceSession(onnxruntime, path, device, options, accelerator)
