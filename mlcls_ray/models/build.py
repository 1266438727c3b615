"""Networks by name, and weights into them."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import nn

from mlcls_ray.errors import UsageError, suggest
from mlcls_ray.images.preprocess import Preprocess, to_tensor
from mlcls_ray.models.networks import NETWORKS


def build_network(name: str, class_num: int, seed: int | None = None) -> nn.Layer:
    """A network with random weights, the same ones for the same seed.

    Raises:
        UsageError: no network has this name.
    """
    if name not in NETWORKS:
        raise UsageError(f"unknown network '{name}'{suggest(name, NETWORKS)}")
    if seed is not None:
        paddle.seed(seed)
    return NETWORKS[name](class_num)


def score_network(network: nn.Layer, pixels: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """uint8 [N, H, W, 3] RGB → float32 [N, C] after the sigmoid, without an engine."""
    network.eval()
    tensor = to_tensor(pixels, preprocess)
    with paddle.no_grad():
        scores: np.ndarray = nn.functional.sigmoid(network(paddle.to_tensor(tensor))).numpy()
    return scores


def load_pdparams(network: nn.Layer, path: Path) -> None:
    """Load a `.pdparams` file, as PaddleClas publishes them, into a network of the same structure.

    Raises:
        UsageError: the file holds something else than named arrays, or names and shapes are not the network's.
    """
    values = read_pdparams(path)
    expected = network.state_dict()
    missing, unknown = sorted(expected.keys() - values.keys()), sorted(values.keys() - expected.keys())
    if missing or unknown:
        told = [f"lacks {_some(missing)}"] * bool(missing) + [f"holds {_some(unknown)}"] * bool(unknown)
        raise UsageError(f"weights '{path}' are of another network: it {' and '.join(told)}")
    for name, value in values.items():
        if list(value.shape) != list(expected[name].shape):
            raise UsageError(
                f"weights '{path}': {name} is {list(value.shape)}, the network's is {list(expected[name].shape)}"
            )
    network.set_state_dict({name: paddle.to_tensor(value) for name, value in values.items()})


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def read_pdparams(path: Path) -> dict[str, np.ndarray]:
    """The named arrays of a `.pdparams` file; it is a pickle, of which nothing but arrays is let in.

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
            raise UsageError(f"weights '{path}': {name} is no array")
    return arrays


class ArraysOnly(pickle.Unpickler):
    """An unpickler that makes NumPy arrays and nothing else: what was downloaded must not run."""

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
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no array")
        return super().find_class(module, name)
