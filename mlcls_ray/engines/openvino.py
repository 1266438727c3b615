"""OpenVINO on CPU in fp32, bf16 or int8. Normalisation is part of the compiled graph, which takes uint8."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mlcls_ray.devices import Device
from mlcls_ray.engines.base import EngineSpec, check_scores, unit_length
from mlcls_ray.errors import UsageError
from mlcls_ray.models.artifact import INT8, Model
from mlcls_ray.models.convert.onnx import MISSING, onnx_graph

PRECISIONS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}
"""OpenVINO's names. The operators of an int8 graph that are not quantized stay in fp32."""


class OpenVinoEngine:
    """A compiled model for each batch size that was warmed up; a smaller batch is padded to the next of these sizes."""

    name = "openvino"
    spec: ClassVar = EngineSpec(candidates={"cpu": ("fp32", "bf16")}, packages=("openvino",))

    def __init__(
        self,
        model: Model,
        device: Device,
        threads: int,
        precision: str = "fp32",
        graph: Path | None = None,
        is_brief: bool = False,
    ) -> None:
        """Read the model, or `graph` (ONNX or OpenVINO IR) instead; `embed` needs a graph with features. `is_brief` changes nothing.

        Raises:
            UsageError: the device is not cpu, OpenVINO is not installed, or there is no int8 graph.
            RunError: the model cannot be converted or read.
        """
        if not device.is_cpu:
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
            graph or (model.folder / INT8 if precision == "int8" else onnx_graph(model))
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
        self._compile(batch_size)  # compiling is what makes a first batch slow; no need to run one

    def score(self, pixels: np.ndarray) -> np.ndarray:
        return self._run(pixels)[0]

    def embed(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scores, features = self._run(pixels)
        return scores, unit_length(features)

    def _run(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Return the outputs of the graph."""
        if len(pixels) > max(self._compiled, default=0):
            self._compile(len(pixels))
        batch = min(size for size in self._compiled if size >= len(pixels))
        padded = pixels
        if len(pixels) < batch:
            padded = np.zeros((batch, *pixels.shape[1:]), np.uint8)
            padded[: len(pixels)] = pixels
        outputs = list(self._compiled[batch](padded).values())
        check_scores(outputs[0], batch, self._class_num)
        return [output[: len(pixels)].astype(np.float32) for output in outputs]

    def _compile(self, batch: int) -> None:
        """Compile the graph for batches of this size: fixed shapes are faster than free ones."""
        if batch in self._compiled:
            return
        self._network.reshape({self._network.input(0): [batch, *self._size, 3]})
        options = {
            "INFERENCE_PRECISION_HINT": PRECISIONS[self.precision],
            "INFERENCE_NUM_THREADS": self._threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,  # otherwise several processes pin their threads to the same first cores
        }
        self._compiled[batch] = self._openvino.Core().compile_model(self._network, "CPU", options)
