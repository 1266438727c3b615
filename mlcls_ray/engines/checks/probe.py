"""The part of the checks that runs in a process of its own, because a library may crash, hang, or keep a card's memory.

    python -m mlcls_ray.engines.checks.probe import MODULE …
    python -m mlcls_ray.engines.checks.probe session PROVIDER INDEX
    python -m mlcls_ray.engines.checks.probe decoder INDEX

The last line of the output is the answer: the versions of the modules, the execution provider that ran a network, or `ok`.
"""

from __future__ import annotations

import base64
import sys
from importlib import import_module

import numpy as np

NETWORK = base64.b64decode(
    "CAg6bwoPCgF4CgF3EgF5IgRDb252EgFnKh8IAQgBCAIIAhABQgF3ShAAAIA/AACAPwAAgD8AAIA/WhsKAXgSFgoUCAESEAoCCAEKAggBCgIIAgoC"
    "CAJiGwoBeRIWChQIARIQCgIIAQoCCAEKAggBCgIIAUIECgAQEQ=="
)
"""ONNX: y = Conv(x, w), x float32 [1, 1, 2, 2], w [1, 1, 2, 2] of ones, y [1, 1, 1, 1]."""


def main(words: list[str]) -> str:
    """Run a probe and return its answer. Raises what the library raises."""
    kind, arguments = words[0], words[1:]
    if kind == "import":
        return " ".join(str(getattr(import_module(name), "__version__", "ok")) for name in arguments)
    if kind == "session":
        return run_network(arguments[0], int(arguments[1]))
    from mlcls_ray.engines.card.decoder import decoder_problem

    return decoder_problem(int(arguments[0])) or "ok"


def run_network(provider: str, index: int) -> str:
    """Run a network of one convolution; returns the provider: a session that is asked for CUDA may come up on the CPU with a warning.

    Raises:
        RuntimeError: this build of ONNX Runtime does not have the provider.
        ArithmeticError: the result is wrong.
    """
    import onnxruntime

    if provider == "CUDAExecutionProvider":
        onnxruntime.preload_dlls()
    if provider not in onnxruntime.get_available_providers():
        raise RuntimeError(f"this build of ONNX Runtime has no {provider}")
    options = {} if provider == "CPUExecutionProvider" else {"device_id": index}
    session = onnxruntime.InferenceSession(NETWORK, providers=[(provider, options)])
    (output,) = session.run(None, {"x": np.ones((1, 1, 2, 2), np.float32)})
    if abs(output.item() - 4.0) > 1e-3:
        raise ArithmeticError(f"a sum of four ones came out as {output.item()}")
    return str(session.get_providers()[0])


if __name__ == "__main__":
    print(main(sys.argv[1:]))
