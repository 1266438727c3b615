"""TensorRT on NVIDIA cards through Paddle Inference, fp32 or fp16, for batches of one up to what it was built for.

As PaddleX 3.7 does it: a program of Paddle 3 (`inference.json`) is converted by `paddle.tensorrt` for a range of shapes, one of Paddle 2 is
configured with such a range and caches its engines. Building takes minutes, so it is done once per model, card and precision, into the
model cache, under a lock. Never run where this was written: there was no card (docs/hardware.md).
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from mlcls_ray.devices import Device
from mlcls_ray.engines.paddle import GPU_POOL_MB, PaddleEngine
from mlcls_ray.errors import UsageError
from mlcls_ray.models.artifact import Model
from mlcls_ray.models.cache import home

LARGEST_BATCH, USUAL_BATCH = 64, 32
"""Engines are built for batches of 1 to LARGEST_BATCH, and tuned for USUAL_BATCH; a larger one is split by `score`."""
WORKSPACE_BYTES = 1 << 30


class TensorRtEngine(PaddleEngine):
    """A predictor over the converted program."""

    name = "tensorrt"

    def __init__(self, model: Model, device: Device, threads: int, precision: str = "fp16") -> None:
        """Load the network, built for this card unless the cache has it.

        Raises:
            UsageError: another device than an NVIDIA card, a precision that it has not, or no card.
            RunError: Paddle cannot load the model.
        """
        if device.kind != "gpu":
            raise UsageError(f"engine tensorrt runs on gpu, not on '{device}'")
        if precision not in ("fp32", "fp16"):
            raise UsageError(f"engine tensorrt has no precision '{precision}': use fp16 or fp32")
        super().__init__(model, device, threads, precision)

    def score(self, pixels: np.ndarray) -> np.ndarray:
        starts = range(0, len(pixels), LARGEST_BATCH)
        return np.concatenate([super(TensorRtEngine, self).score(pixels[at : at + LARGEST_BATCH]) for at in starts])

    def _configure(self, inference: Any, model: Model, device: Device, threads: int) -> Any:
        import paddle

        card = str(paddle.device.cuda.get_device_name(device.index)).replace(" ", "-").replace("/", "-")
        folder = home() / "tensorrt" / f"{model.fingerprint[:32]}-{card}-{self.precision}"
        folder.mkdir(parents=True, exist_ok=True)
        shapes = [(batch, 3, *reversed(model.preprocess.input_size)) for batch in (1, USUAL_BATCH, LARGEST_BATCH)]
        with FileLock(folder / ".lock"):
            if model.program.suffix == ".json":
                return _converted(inference, model, device, folder, shapes, self.precision)
            return _tuned(inference, model, device, folder, shapes, self.precision)


def _converted(
    inference: Any, model: Model, device: Device, folder: Path, shapes: list[tuple[int, ...]], precision: str
) -> Any:
    program = folder / "model/inference.json"
    if not program.exists():
        from paddle.tensorrt.export import Input, PrecisionMode, TensorRTConfig, convert

        smallest, usual, largest = (np.zeros(shape, np.float32) for shape in shapes)
        config = TensorRTConfig(inputs=[Input((smallest, usual, largest))])
        config.precision_mode = PrecisionMode.FP16 if precision == "fp16" else PrecisionMode.FP32
        config.workspace_size = WORKSPACE_BYTES
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            config.save_model_dir = f"{temporary}/model/inference"
            convert(str(model.program.with_suffix("")), config)
            os.replace(f"{temporary}/model", program.parent)
    config = inference.Config(str(program), str(program.with_suffix(".pdiparams")))
    config.enable_use_gpu(GPU_POOL_MB, device.index)
    config.enable_new_executor()
    config.enable_memory_optim()
    config.disable_glog_info()
    return config


def _tuned(
    inference: Any, model: Model, device: Device, folder: Path, shapes: list[tuple[int, ...]], precision: str
) -> Any:
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
