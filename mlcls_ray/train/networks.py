"""The network that is trained: built, and filled with initial weights."""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import paddle
from paddle import nn
from safetensors.numpy import load_file

from mlcls_ray.errors import UsageError
from mlcls_ray.images.preprocess import Preprocess
from mlcls_ray.models.artifact import load_model
from mlcls_ray.models.build import build_network, read_pdparams
from mlcls_ray.models.convert.paddle import export_network
from mlcls_ray.models.heads import HEADS, LogitClassifier, MultiLabelClassifier, WithSigmoid
from mlcls_ray.models.networks.spec import NetworkSpec, is_head
from mlcls_ray.models.zoo import STARTER, STARTER_FOLDER


def build(spec: NetworkSpec, class_num: int, seed: int = 0, head: str | None = None) -> nn.Layer:
    """Build a network for training, with seeded random weights; `head`: a name in HEADS, None for the network's usual head."""
    return build_network(spec, class_num, seed, head, for_training=True)


def preprocess_of(spec: NetworkSpec, input_size: int | None) -> Preprocess:
    """Return the network's preprocessing, at another input size if one is given."""
    return (
        spec.preprocess if input_size is None else spec.preprocess.model_copy(update={"size": (input_size, input_size)})
    )


def load_initial_weights(
    network: nn.Layer,
    spec: NetworkSpec,
    init_from: str | None,
    classes: tuple[str, ...],
    input_size: int | None = None,
) -> None:
    """Fill a network from a weights file or a model folder. The head stays random, with a note on stderr, if classes or heads differ.

    Raises:
        UsageError: the weights cannot be read, or belong to another network.
    """
    source = init_from or spec.initial_weights
    if source is None:
        print(f"{spec.name} starts from random weights", file=sys.stderr)
        return
    path = STARTER_FOLDER if source == STARTER else Path(source)
    if path.is_dir():
        model = load_model(path)
        values = read_inference_weights(
            spec, path, len(model.vocabulary), preprocess_of(spec, input_size).input_size[0]
        )
        has_same_head = model.vocabulary == classes and _fits_head(network, values)
    else:
        values = load_file(path) if path.suffix == ".safetensors" else read_pdparams(path)
        has_same_head = _fits_head(network, values)
    if not has_same_head:
        print(f"'{source}' has other classes or another head: the head starts from random weights", file=sys.stderr)
    _set_weights(network, values, has_same_head, source)


def _fits_head(network: nn.Layer, values: Mapping[str, np.ndarray]) -> bool:
    return all(
        name in values and list(values[name].shape) == list(tensor.shape)
        for name, tensor in network.state_dict().items()
        if is_head(name)
    )


def _set_weights(network: nn.Layer, values: Mapping[str, np.ndarray], with_head: bool, source: str) -> None:
    expected = network.state_dict()
    names = [name for name in expected if with_head or not is_head(name)]
    wrong = [name for name in names if name not in values or list(values[name].shape) != list(expected[name].shape)]
    if wrong:
        raise UsageError(
            f"init_from '{source}' is of another network: it has no {wrong[0]} of shape {list(expected[wrong[0]].shape)}"
        )
    network.set_state_dict({**expected, **{name: paddle.to_tensor(values[name]) for name in names}})


def read_inference_weights(spec: NetworkSpec, folder: Path, class_num: int, input_size: int) -> dict[str, np.ndarray]:
    """Read the parameters of an inference folder by the names that they have in the network, whichever head it has.

    An inference program only numbers its parameters. To find their names, the same network is exported again with each parameter filled
    with its own number.

    Raises:
        UsageError: the folder belongs to another network.
    """
    values = _program_parameters(folder)
    for head in sorted(HEADS, key=lambda head: head != spec.usual_head):  # the usual one first: each costs an export
        numbered = build(spec, class_num, head=head)
        names = list(numbered.state_dict())
        numbered.set_state_dict(
            {
                name: paddle.full(tensor.shape, number, tensor.dtype)
                for number, (name, tensor) in enumerate(numbered.state_dict().items())
            }
        )
        with tempfile.TemporaryDirectory() as temporary:
            export_network(with_sigmoid(numbered), input_size, Path(temporary))
            numbers = _program_parameters(Path(temporary))
        if [number.shape for number in numbers] == [value.shape for value in values]:
            return {
                names[round(float(number.ravel()[0]))]: value for number, value in zip(numbers, values, strict=True)
            }
    raise UsageError(f"init_from '{folder}' is of another network than {spec.name}")


def _program_parameters(folder: Path) -> list[np.ndarray]:
    """Read the parameters of an inference folder in the order in which their layers were created.

    A program sorts them by name, and Paddle counts names up within a process: `linear_10` comes before `linear_9`.
    """
    values = [tensor.numpy() for tensor in paddle.jit.load(str(folder / "inference")).state_dict().values()]
    program = folder / "inference.json"
    if not program.is_file():  # the format of Paddle 2
        return values
    operations = json.loads(program.read_text("utf-8"))["program"]["regions"][0]["blocks"][0]["ops"]
    names = sorted(operation["A"][-1] for operation in operations if operation["#"] == "p")
    order = sorted(range(len(names)), key=lambda place: _natural_order(names[place]))
    return [values[place] for place in order]


def _natural_order(name: str) -> list[str | int]:
    return [int(piece) if piece.isdecimal() else piece for piece in re.split(r"(\d+)", name)]


def with_sigmoid(network: nn.Layer) -> nn.Layer:
    """Wrap a network for export: the same parameters, with a sigmoid at the end."""
    if isinstance(network, LogitClassifier):
        return MultiLabelClassifier(network.backbone, network.head)
    return WithSigmoid(network)
