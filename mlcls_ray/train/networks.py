"""The network that is trained: built, and filled with initial weights."""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import paddle
from paddle import nn
from safetensors.numpy import load_file

from mlcls_ray.errors import UsageError
from mlcls_ray.images.preprocess import Preprocess
from mlcls_ray.models.artifact import load_model
from mlcls_ray.models.build import build_network, read_pdparams
from mlcls_ray.models.cache import model_folder
from mlcls_ray.models.convert.paddle import export_network
from mlcls_ray.models.heads import HEADS, LogitClassifier, MultiLabelClassifier, WithSigmoid
from mlcls_ray.models.networks.spec import NetworkSpec, is_head
from mlcls_ray.models.outdated import adapted, outdated_note, refuse_unadaptable
from mlcls_ray.models.zoo import STARTER, STARTER_FOLDER
from mlcls_ray.train.head_classes import take_over_head


def build(spec: NetworkSpec, class_num: int, seed: int = 0, head: str | None = None) -> nn.Layer:
    """Build a network for training, with seeded random weights; `head`: a name in HEADS, None for the network's usual head."""
    return build_network(spec, class_num, seed, head, for_training=True)


def preprocess_of(spec: NetworkSpec, input_size: int | None) -> Preprocess:
    """Return the network's preprocessing, at another input size if one is given."""
    return (
        spec.preprocess if input_size is None else spec.preprocess.model_copy(update={"size": (input_size, input_size)})
    )


class InitialWeights(NamedTuple):
    """The origin of a network's weights. `source` is None for random ones; `known` are the classes that its head has been trained for."""

    source: str | None = None
    known: frozenset[str] = frozenset()


def load_initial_weights(
    network: nn.Layer,
    spec: NetworkSpec,
    init_from: str | None,
    classes: tuple[str, ...],
    input_size: int | None = None,
) -> InitialWeights:
    """Fill a network from a weights file or a model folder.

    Classes that a model folder has too are taken over by their names. The head's parts of other classes stay random, and all of it if
    the heads differ, with a note on stderr.

    Raises:
        UsageError: the weights cannot be read, or belong to another network.
    """
    source = init_from or spec.initial_weights
    if source is None:
        print(f"{spec.name} starts from random weights", file=sys.stderr)
        return InitialWeights()
    path = STARTER_FOLDER if source == STARTER else Path(source)
    source_classes = None
    if path.is_dir():
        path = model_folder(path)
        model = load_model(path)
        refuse_unadaptable(model)
        source_classes = model.vocabulary
        size = preprocess_of(spec, input_size).input_size[0]
        values = adapted(model, read_inference_weights(spec, path, len(source_classes), size))
        if (note := outdated_note(model)) is not None:
            print(f"{note}. Its weights are changed so that training starts from its scores", file=sys.stderr)
    else:
        values = load_file(path) if path.suffix == ".safetensors" else read_pdparams(path)
    head = take_over_head(getattr(network, spec.head_attribute), spec.head_attribute, values, source_classes, classes)
    known = frozenset() if head is None else head.known
    if head is None:
        print(f"'{source}' has another head: the head is new", file=sys.stderr)
    elif len(known) < len(set(classes)):
        some = f"has {len(known)} of the {len(classes)} classes" if source_classes else "does not name its classes"
        print(f"'{source}' {some}: the head's parts for the others are new", file=sys.stderr)
    _set_weights(network, spec, {**values, **(head.values if head else {})}, head is not None, source)
    return InitialWeights(source, known)


def _set_weights(
    network: nn.Layer, spec: NetworkSpec, values: Mapping[str, np.ndarray], with_head: bool, source: str
) -> None:
    expected = network.state_dict()
    names = [
        name
        for name in expected
        if (with_head or not is_head(name)) and not (name in spec.unused and name not in values)
    ]
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
