"""OpenVINO on CPU, fp32, bf16 or int8; normalisation is part of the compiled graph, which takes uint8."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mlcls_ray.devices import Device
from mlcls_ray.engines.base import check_scores, unit_length
from mlcls_ray.errors import UsageError
from mlcls_ray.models.artifact import INT8, Model
from mlcls_ray.models.convert.onnx import MISSING, converted

PRECISIONS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}
"""What is not quantized of an int8 graph stays in fp32."""


class OpenVinoEngine:
    """A compiled model for each batch size that was warmed up; a batch of another size is filled up to the next of them."""

    name = "openvino"

    def __init__(
        self, model: Model, device: Device, threads: int, precision: str = "fp32", graph: Path | None = None
    ) -> None:
        """Read `graph` (ONNX or IR; by default the model, converted unless the cache has it; `embed` needs one with features).

        Raises:
            UsageError: another device than cpu, or OpenVINO is not installed.
            RunError: the model cannot be converted or read.
        """
        if device.kind != "cpu":
            raise UsageError(f"engine openvino runs on cpu, not on '{device}'")
        try:
            import openvino
            from openvino.preprocess import PrePostProcessor
        except ImportError:
            raise UsageError(f"engine openvino {MISSING}") from None
        if precision == "int8" and not (model.folder / INT8).is_file():
            raise UsageError(f"precision int8: model '{model.folder}' has no {INT8}; make one by mlcls quantize")
        self.precision = precision
        self._openvino = openvino
        self._threads = threads
        self._class_num = len(model.vocabulary)
        self._compiled: dict[int, Any] = {}
        preprocess = model.preprocess
        width, height = preprocess.input_size
        network = openvino.Core().read_model(
            graph or (model.folder / INT8 if precision == "int8" else converted(model))
        )
        self.embedding_size = network.output(1).partial_shape[1].get_length() if len(network.outputs) > 1 else 0
        network.reshape({network.input(0): [-1, 3, height, width]})
        wrapped = PrePostProcessor(network)
        source = wrapped.input()
        source.tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
        source.model().set_layout(openvino.Layout("NCHW"))
        mean = [value / preprocess.scale for value in preprocess.mean]
        scale = [value / preprocess.scale for value in preprocess.std]
        source.preprocess().convert_element_type(openvino.Type.f32).mean(mean).scale(scale)
        self._network = wrapped.build()
        self._size = (height, width)

    def warm_up(self, batch_size: int) -> None:
        self._compile(batch_size)  # what is slow about a first batch; a large network's run takes seconds

    def score(self, pixels: np.ndarray) -> np.ndarray:
        return self._run(pixels)[0]

    def embed(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scores, features = self._run(pixels)
        return scores, unit_length(features)

    def _run(self, pixels: np.ndarray) -> list[np.ndarray]:
        """The outputs of the graph."""
        if len(pixels) > max(self._compiled, default=0):
            self._compile(len(pixels))
        batch = min(size for size in self._compiled if size >= len(pixels))
        filled = pixels
        if len(pixels) < batch:
            filled = np.zeros((batch, *pixels.shape[1:]), np.uint8)
            filled[: len(pixels)] = pixels
        outputs = list(self._compiled[batch](filled).values())
        check_scores(outputs[0], batch, self._class_num)
        return [one[: len(pixels)].astype(np.float32) for one in outputs]

    def _compile(self, batch: int) -> None:
        """For batches of this size: a graph whose shapes are known is the faster one."""
        if batch in self._compiled:
            return
        self._network.reshape({self._network.input(0): [batch, *self._size, 3]})
        options = {
            "INFERENCE_PRECISION_HINT": PRECISIONS[self.precision],
            "INFERENCE_NUM_THREADS": self._threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,  # else each of several processes pins its threads to the same first cores
        }
        self._compiled[batch] = self._openvino.Core().compile_model(self._network, "CPU", options)
