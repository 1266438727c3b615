"""Convert a Paddle program to ONNX: `python -m mlcls_ray.models.convert.onnx_program PROGRAM PARAMETERS ONNX OPSET`. See `onnx`."""

from __future__ import annotations

import sys

import paddle2onnx
from polygraphy import config


def main(program: str, parameters: str, onnx: str, opset: str) -> None:
    # paddle2onnx allows its helper to install packages at run time, and it would put onnxruntime beside onnxruntime-gpu.
    config.AUTOINSTALL_DEPS = False
    paddle2onnx.export(
        program,
        parameters,
        onnx,
        opset_version=int(opset),
        verbose=False,
        optimize_tool="polygraphy",  # folds constants
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
