"""Paddle Inference: on CPU with oneDNN, on other devices as PaddleX configures it."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from mlcls_ray.devices import Device
from mlcls_ray.engines.base import EngineSpec, check_scores
from mlcls_ray.engines.devices import check_paddle_device
from mlcls_ray.errors import RunError, UsageError, short_message
from mlcls_ray.images.preprocess import normalize
from mlcls_ray.models.artifact import Model
from mlcls_ray.terminal import suppress_native_output

ONEDNN_SHAPES = 10
"""For how many input shapes oneDNN keeps its compiled kernels."""
GPU_POOL_MB = 100
MISSING = (
    "needs Paddle, which is not installed here: pip install paddlepaddle; or copy the model cache of a machine that has it, filled by "
    "`mlcls models prepare`"
)
PRECISIONS = {"cpu": ("fp32", "bf16"), "gpu": ("fp32", "fp16")}
"""Precisions by kind of device; kinds that are not listed have fp32 only."""
PLUGIN_FAILED = "CustomDevice error, the error code is : 2"
"""Paddle's words where a plug-in (NPU …) answers C_FAILED to an allocation."""
DCU_REMOVED_PASSES = ("conv2d_add_act_fuse_pass", "conv2d_add_fuse_pass")
XPU_REMOVED_PASSES = ("conv2d_bn_xpu_fuse_pass", "transfer_layout_pass")
"""Fusion passes that PaddleX removes on these devices, because they have no kernels for them."""


class PaddleEngine:
    """A predictor of Paddle Inference over the model's program."""

    name = "paddle"
    spec: ClassVar = EngineSpec(
        candidates={"cpu": ("fp32", "bf16")},  # on NVIDIA cards it is experimental: `auto` does not try it there
        packages=("paddlepaddle", "paddlepaddle-gpu"),
    )

    def __init__(
        self, model: Model, device: Device, threads: int, precision: str = "fp32", is_brief: bool = False
    ) -> None:
        """Load the network.

        Args:
            threads: CPU threads of one score call.
            precision: fp32; on a CPU also bf16 (slower than fp32 if the CPU has no instructions for it), on a GPU fp16.
            is_brief: changes nothing.

        Raises:
            UsageError: Paddle is not installed, or the device is missing, or does not have the precision.
            RunError: Paddle cannot load the model.
        """
        if precision not in PRECISIONS.get(device.kind, ("fp32",)):
            raise UsageError(f"engine paddle has no precision '{precision}' on '{device}': use fp32")
        self.precision = precision
        self._is_cpu = device.is_cpu
        with suppress_native_output():
            try:
                check_paddle_device(device)
                from paddle import inference
            except ImportError:
                raise UsageError(f"engine paddle {MISSING}") from None
            self._create_predictor(inference, self._configure(inference, model, device, threads), model)

    def _configure(self, inference: Any, model: Model, device: Device, threads: int) -> Any:
        """Return Paddle Inference's configuration for the model."""
        config = make_config(inference, model, device, threads, self.precision)
        if self.precision == "bf16":
            config.enable_mkldnn_bfloat16()
        return config

    def _create_predictor(self, inference: Any, config: Any, model: Model) -> None:
        try:
            self._predictor = inference.create_predictor(config)
        except Exception as error:  # Paddle raises what its C++ side maps to: ValueError, RuntimeError, OSError …
            hint = "; the device failed to allocate memory: is it full?" if PLUGIN_FAILED in str(error) else ""
            message = f"Paddle cannot load {model.program}: {short_message(error)}{hint}"
            raise RunError(f"model '{model.name}': {message}") from None
        (input_name,) = self._predictor.get_input_names()
        (output_name,) = self._predictor.get_output_names()
        self._input = self._predictor.get_input_handle(input_name)
        self._output = self._predictor.get_output_handle(output_name)
        self._preprocess = model.preprocess
        self._class_num = len(model.vocabulary)
        self._tensor = np.empty((0, 3, *reversed(model.preprocess.input_size)), dtype=np.float32)

    def warm_up(self, batch_size: int) -> None:
        width, height = self._preprocess.input_size
        with suppress_native_output():  # the first run prints too
            # On a CPU little depends on the batch size, and a large network takes seconds for one image.
            images = 1 if self._is_cpu else batch_size
            self.score(np.zeros((images, height, width, 3), dtype=np.uint8))

    def score(self, pixels: np.ndarray) -> np.ndarray:
        return check_scores(self.run(pixels), len(pixels), self._class_num)

    def run(self, pixels: np.ndarray) -> np.ndarray:
        """Return the output for uint8 pixels [N, H, W, 3], whatever its shape: a part of a network gives feature maps."""
        if len(self._tensor) < len(pixels):
            self._tensor = np.empty((len(pixels), *self._tensor.shape[1:]), dtype=np.float32)
        tensor = normalize(pixels, self._preprocess, self._tensor[: len(pixels)])
        self._input.reshape(tensor.shape)
        self._input.copy_from_cpu(tensor)
        self._predictor.run()
        return np.asarray(self._output.copy_to_cpu())


def make_config(inference: Any, model: Model, device: Device, threads: int, precision: str = "fp32") -> Any:
    """Configure Paddle Inference (`inference` is the module) for a model on a kind of device."""
    config = inference.Config(str(model.program), str(model.parameters))
    if device.kind in ("gpu", "dcu"):
        config.disable_mkldnn()
        if precision == "fp16":
            config.exp_disable_mixed_precision_ops({"feed", "fetch"})  # tensors go in and scores come out as float32
            config.enable_use_gpu(GPU_POOL_MB, device.index, inference.PrecisionType.Half)
        else:
            config.enable_use_gpu(GPU_POOL_MB, device.index)
        config.set_optimization_level(3)
        for name in DCU_REMOVED_PASSES if device.kind == "dcu" else ():
            config.delete_pass(name)
    elif device.kind == "cpu":
        config.disable_gpu()
        config.enable_mkldnn()
        config.set_mkldnn_cache_capacity(ONEDNN_SHAPES)
        config.set_cpu_math_library_num_threads(threads)
        config.set_optimization_level(3)
    elif device.kind == "xpu":
        config.enable_xpu()
        config.set_xpu_device_id(device.index)
        for name in XPU_REMOVED_PASSES:
            config.delete_pass(name)
    else:
        if device.kind == "gcu":
            from paddle_custom_device.gcu import passes  # part of the plug-in

            passes.setUp()
        config.enable_custom_device(device.kind, device.index)
    if model.program.suffix == ".json":
        config.enable_new_ir(True)
    config.enable_new_executor()
    config.enable_memory_optim()
    config.disable_glog_info()
    return config
