"""The network that is trained: found by name, built, and filled with initial weights."""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import paddle
from paddle import nn
from safetensors.numpy import load_file

from mlcls_ray.errors import UsageError, suggest
from mlcls_ray.images.preprocess import Preprocess
from mlcls_ray.models.artifact import load_model
from mlcls_ray.models.build import build_network, read_pdparams
from mlcls_ray.models.convert.paddle import export_network
from mlcls_ray.models.heads import MLDecoder, MultiLabelClassifier, PooledLinearHead, PooledLocalHead, WithSigmoid
from mlcls_ray.models.networks import NETWORKS
from mlcls_ray.models.networks.efficientnet_lite import FEATURE_CHANNELS, EfficientNetLite0
from mlcls_ray.models.zoo import OFFICIAL, STARTER, STARTER_FOLDER
from mlcls_ray.train.freezing import is_head

HEADS: Mapping[str, type[nn.Layer]] = {
    "pooled": PooledLinearHead,
    "pooled_local": PooledLocalHead,
    "ml_decoder": MLDecoder,
}


class LogitClassifier(nn.Layer):
    """Backbone and head, ending in logits. `MultiLabelClassifier` exports it: the same parameters, with a sigmoid at the end."""

    def __init__(self, backbone: nn.Layer, head: nn.Layer) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.head(self.backbone(x))


class NetworkSpec(NamedTuple):
    """A network that can be trained."""

    name: str
    """Its name in an exported model."""
    build: Callable[[int, str], nn.Layer]
    """Class count, name of a head → network with random weights that gives logits float32 [N, C]."""
    usual_head: str
    preprocess: Preprocess
    initial_weights: str | None = None
    """A model folder that training starts from by default; None: random weights."""


def find_network(name: str) -> NetworkSpec:
    """Look up a network by the name that a job gives.

    Raises:
        UsageError: no network has this name.
    """
    if name == STARTER:
        model = load_model(STARTER_FOLDER)
        return NetworkSpec(model.name, _build_starter, "pooled_local", model.preprocess, str(STARTER_FOLDER))
    if name not in NETWORKS:
        raise UsageError(f"unknown network '{name}'{suggest(name, [STARTER, *NETWORKS])}")

    def build_official(class_num: int, head: str) -> nn.Layer:
        network = build_network(name, class_num)
        if head != "ml_decoder":
            network.fc = HEADS[head](network.fc.input_proj.weight.shape[1], class_num)
        return network

    return NetworkSpec(name, build_official, "ml_decoder", OFFICIAL[name].preprocess)


def _build_starter(class_num: int, head: str) -> nn.Layer:
    return LogitClassifier(EfficientNetLite0(), HEADS[head](FEATURE_CHANNELS, class_num))


def build(spec: NetworkSpec, class_num: int, seed: int = 0, head: str | None = None) -> nn.Layer:
    """Build a network with seeded random weights; `head`: a name in HEADS, None for the network's usual head."""
    paddle.seed(seed)
    return spec.build(class_num, head or spec.usual_head)


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
