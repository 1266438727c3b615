"""Networks with random weights, and weights into them."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import nn

from mlcls_ray.errors import UsageError, first_names
from mlcls_ray.images.preprocess import Preprocess, to_tensor
from mlcls_ray.models.heads import HEADS
from mlcls_ray.models.networks.spec import NetworkSpec


def build_network(
    spec: NetworkSpec,
    class_num: int,
    seed: int | None = None,
    head: str | None = None,
    for_training: bool = False,
) -> nn.Layer:
    """Build a network that gives logits float32 [N, C], with random weights: the same ones for the same seed.

    Args:
        spec: see `networks.network_spec`.
        head: a key of `HEADS`; None: the network's usual head.
        for_training: build what is fine-tuned, where that differs from the structure of the published weights.
    """
    if seed is not None:
        paddle.seed(seed)
    build = spec.build_trainable if for_training and spec.build_trainable else spec.build
    network = build(class_num)
    if head is not None and head != spec.usual_head:
        setattr(network, spec.head_attribute, HEADS[head](spec.channels, class_num))
    return network


def score_network(network: nn.Layer, pixels: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """Score uint8 [N, H, W, 3] RGB without an engine: float32 [N, C] after the sigmoid."""
    network.eval()
    tensor = to_tensor(pixels, preprocess)
    with paddle.no_grad():
        scores: np.ndarray = nn.functional.sigmoid(network(paddle.to_tensor(tensor))).numpy()
    return scores


def load_pdparams(network: nn.Layer, path: Path) -> None:
    """Load a `.pdparams` file, as PaddleClas publishes them, into a network of the same structure.

    Raises:
        UsageError: the file holds something else than named arrays, or its names and shapes are not the network's.
    """
    values = read_pdparams(path)
    expected = network.state_dict()
    missing, unknown = sorted(expected.keys() - values.keys()), sorted(values.keys() - expected.keys())
    if missing or unknown:
        reasons = [f"lacks {first_names(missing, 3)}"] * bool(missing) + [f"holds {first_names(unknown, 3)}"] * bool(
            unknown
        )
        raise UsageError(f"weights '{path}' are of another network: it {' and '.join(reasons)}")
    for name, value in values.items():
        if list(value.shape) != list(expected[name].shape):
            raise UsageError(
                f"weights '{path}': {name} is {list(value.shape)}, the network's is {list(expected[name].shape)}"
            )
    network.set_state_dict({name: paddle.to_tensor(value) for name, value in values.items()})


def read_pdparams(path: Path) -> dict[str, np.ndarray]:
    """Read the named arrays of a `.pdparams` file. The file is a pickle; only arrays are let in.

    Raises:
        UsageError: it cannot be read, or holds anything else.
    """
    try:
        loaded = ArraysOnly(io.BytesIO(path.read_bytes())).load()
    except OSError as error:
        raise UsageError(f"weights '{path}' cannot be read: {error.strerror}") from None
    except (pickle.UnpicklingError, EOFError, AttributeError, ImportError, IndexError, ValueError, TypeError) as error:
        raise UsageError(f"weights '{path}' are not a .pdparams file: {error}") from None
    if not isinstance(loaded, dict):
        raise UsageError(
            f"weights '{path}' are not a .pdparams file: {type(loaded).__name__} instead of names and arrays"
        )
    loaded.pop("StructuredToParameterName@@", None)  # Paddle's own table of names
    arrays = {str(name): value[1] if isinstance(value, tuple) else value for name, value in loaded.items()}
    for name, value in arrays.items():
        if not isinstance(value, np.ndarray) or value.dtype.hasobject:
            raise UsageError(f"weights '{path}': {name} is not an array")
    return arrays


class ArraysOnly(pickle.Unpickler):
    """An unpickler that makes NumPy arrays and nothing else: a downloaded file must not run code."""

    ALLOWED = frozenset(
        {
            ("builtins", "tuple"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"),
            ("numpy.core.numeric", "_frombuffer"),
            ("numpy._core.numeric", "_frombuffer"),
            ("_codecs", "encode"),
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not an array")
        return super().find_class(module, name)
