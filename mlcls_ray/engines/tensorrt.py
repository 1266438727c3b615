"""TensorRT on NVIDIA GPUs through Paddle Inference, in fp32 or fp16. Experimental: it has never been run (docs/hardware.md).

It is built as PaddleX 3.7 builds it: `paddle.tensorrt` converts a program of Paddle 3 (`inference.json`) for a range of shapes; a program
of Paddle 2 is configured with such a range and caches its engines itself. Building takes minutes, so the result is cached per model, GPU
type and precision.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mlcls_ray.devices import Device
from mlcls_ray.engines.base import EngineSpec
from mlcls_ray.engines.machine import device_identity
from mlcls_ray.engines.paddle import GPU_POOL_MB, PaddleEngine
from mlcls_ray.errors import UsageError
from mlcls_ray.models.artifact import Model
from mlcls_ray.models.cache import home, once

LARGEST_BATCH, USUAL_BATCH = 64, 32
"""Engines are built for batches of 1 to LARGEST_BATCH and tuned for USUAL_BATCH; `score` splits a larger batch."""
WORKSPACE_BYTES = 1 << 30


class TensorRtEngine(PaddleEngine):
    """A predictor over the converted program."""

    name = "tensorrt"
    spec: ClassVar = EngineSpec(candidates={}, packages=("tensorrt",))  # experimental: `auto` does not try it

    def __init__(
        self, model: Model, device: Device, threads: int, precision: str = "fp16", is_brief: bool = False
    ) -> None:
        """Load the network; it is built for this type of GPU unless the cache has it.

        Raises:
            UsageError: the device is not an NVIDIA GPU or is missing, or the precision is neither fp16 nor fp32.
            RunError: Paddle cannot load the model.
        """
        if device.kind != "gpu":
            raise UsageError(f"engine tensorrt runs on gpu, not on '{device}'")
        if precision not in ("fp32", "fp16"):
            raise UsageError(f"engine tensorrt has no precision '{precision}': use fp16 or fp32")
        super().__init__(model, device, threads, precision, is_brief)

    def score(self, pixels: np.ndarray) -> np.ndarray:
        starts = range(0, len(pixels), LARGEST_BATCH)
        parts = [super(TensorRtEngine, self).score(pixels[start : start + LARGEST_BATCH]) for start in starts]
        return np.concatenate(parts)

    def _configure(self, inference: Any, model: Model, device: Device, threads: int) -> Any:
        name = device_identity(device).replace(" ", "-").replace("/", "-")
        folder = home() / "tensorrt" / f"{model.fingerprint[:32]}-{name}-{self.precision}"
        shapes = [(batch, 3, *reversed(model.preprocess.input_size)) for batch in (1, USUAL_BATCH, LARGEST_BATCH)]
        if model.program.suffix == ".json":
            return _converted(inference, model, device, folder, shapes, self.precision)
        return _tuned(inference, model, device, folder, shapes, self.precision)


def _converted(
    inference: Any, model: Model, device: Device, folder: Path, shapes: list[tuple[int, ...]], precision: str
) -> Any:
    """Convert a program of Paddle 3, unless the cache has it."""

    def make(path: Path) -> None:
        from paddle.tensorrt.export import Input, PrecisionMode, TensorRTConfig, convert

        smallest, usual, largest = (np.zeros(shape, np.float32) for shape in shapes)
        config = TensorRTConfig(inputs=[Input((smallest, usual, largest))])
        config.precision_mode = PrecisionMode.FP16 if precision == "fp16" else PrecisionMode.FP32
        config.workspace_size = WORKSPACE_BYTES
        config.save_model_dir = str(path / "inference")
        convert(str(model.program.with_suffix("")), config)

    program = once(folder / "model", make) / "inference.json"
    config = inference.Config(str(program), str(program.with_suffix(".pdiparams")))
    config.enable_use_gpu(GPU_POOL_MB, device.index)
    config.enable_new_executor()
    config.enable_memory_optim()
    config.disable_glog_info()
    return config


def _tuned(
    inference: Any, model: Model, device: Device, folder: Path, shapes: list[tuple[int, ...]], precision: str
) -> Any:
    """Configure a program of Paddle 2; Paddle caches the engines that it builds in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    config = inference.Config(str(model.program), str(model.parameters))
    config.enable_use_gpu(GPU_POOL_MB, device.index)
    config.set_optim_cache_dir(str(folder))
    config.enable_tensorrt_engine(
        workspace_size=WORKSPACE_BYTES,
        max_batch_size=LARGEST_BATCH,
        min_subgraph_size=3,
        precision_mode=inference.PrecisionType.Half if precision == "fp16" else inference.PrecisionType.Float32,
        use_static=True,
        use_calib_mode=False,
    )
    smallest, usual, largest = (list(shape) for shape in shapes)
    config.set_trt_dynamic_shape_info({"x": smallest}, {"x": largest}, {"x": usual})
    config.enable_memory_optim()
    config.disable_glog_info()
    return config
