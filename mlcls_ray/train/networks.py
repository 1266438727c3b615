"""The network that is trained: built by name, filled from what it starts from, exported at the end."""

from __future__ import annotations

import json
import re
import sys
import tempfile
from pathlib import Path

import numpy as np
import paddle
from paddle import nn
from safetensors.numpy import load_file

from mlcls_ray.errors import UsageError
from mlcls_ray.images.preprocess import Preprocess
from mlcls_ray.models.artifact import load_model
from mlcls_ray.models.build import build_network, read_pdparams
from mlcls_ray.models.convert.paddle import export_network, write_config
from mlcls_ray.models.heads import HEADS, MultiLabelClassifier, WithSigmoid
from mlcls_ray.models.heads import LogitClassifier as Trained
from mlcls_ray.models.networks import network_spec
from mlcls_ray.models.zoo import STARTER, STARTER_FOLDER
from mlcls_ray.train.config import FinetuneJob
from mlcls_ray.train.optimizer import is_head


def build(name: str, class_num: int, seed: int, head: str | None = None) -> nn.Layer:
    """Build a network that gives logits float32 [N, C], with seeded random weights; `head`: a key of HEADS, or None, its usual one.

    Raises:
        UsageError: no network has this name.
    """
    return build_network(network_spec(name), class_num, seed, head, for_training=True)


def preprocess_of(job: FinetuneJob) -> Preprocess:
    """Return the network's usual preprocessing, at the job's input size."""
    usual = network_spec(job.network).preprocess
    return usual if job.input_size is None else usual.model_copy(update={"size": (job.input_size, job.input_size)})


def load_start(network: nn.Layer, job: FinetuneJob, classes: tuple[str, ...]) -> None:
    """Fill a network from what the job starts from. The head stays random, and that is said aloud, where the classes are others.

    Raises:
        UsageError: it cannot be read, or is of another network.
    """
    start = job.start or (str(STARTER_FOLDER) if job.network == STARTER else None)
    if start is None:
        print(f"{job.network} starts from random weights", file=sys.stderr)
        return
    path = STARTER_FOLDER if start == STARTER else Path(start)
    if path.is_dir():
        model = load_model(path)
        values = read_inference(job, path, len(model.vocabulary))
        is_same_head = model.vocabulary == classes and _has_head(network, values)
    else:
        values = load_file(path) if path.suffix == ".safetensors" else read_pdparams(path)
        is_same_head = _has_head(network, values)
    if not is_same_head:
        print(f"the classes or the head of '{start}' are others: the head starts from random weights", file=sys.stderr)
    _fill(network, values, is_same_head, start)


def _has_head(network: nn.Layer, values: dict[str, np.ndarray]) -> bool:
    return all(
        name in values and list(values[name].shape) == list(one.shape)
        for name, one in network.state_dict().items()
        if is_head(name)
    )


def _fill(network: nn.Layer, values: dict[str, np.ndarray], with_head: bool, start: str) -> None:
    expected = network.state_dict()
    wanted = [name for name in expected if with_head or not is_head(name)]
    wrong = [name for name in wanted if name not in values or list(values[name].shape) != list(expected[name].shape)]
    if wrong:
        raise UsageError(
            f"start '{start}' is of another network: it has no {wrong[0]} of shape {list(expected[wrong[0]].shape)}"
        )
    network.set_state_dict({**expected, **{name: paddle.to_tensor(values[name]) for name in wanted}})


def read_inference(job: FinetuneJob, folder: Path, class_num: int) -> dict[str, np.ndarray]:
    """The parameters of an inference folder under the network's names, whichever head it has.

    An inference program numbers its parameters. A second export of the same network, in which each parameter holds its own number, tells
    which is which.

    Raises:
        UsageError: it is of another network.
    """
    values = _parameters(folder)
    for head in sorted(HEADS, key=lambda one: one != network_spec(job.network).usual_head):  # each costs an export
        marked = build(job.network, class_num, seed=0, head=head)
        names = list(marked.state_dict())
        marked.set_state_dict(
            {
                name: paddle.full(one.shape, number, one.dtype)
                for number, (name, one) in enumerate(marked.state_dict().items())
            }
        )
        with tempfile.TemporaryDirectory() as temporary:
            export_network(exported_form(marked), preprocess_of(job).input_size[0], Path(temporary))
            told = _parameters(Path(temporary))
        if [one.shape for one in told] == [one.shape for one in values]:
            return {names[round(float(number.ravel()[0]))]: value for number, value in zip(told, values, strict=True)}
    raise UsageError(f"start '{folder}' is of another network than {job.network}")


def _parameters(folder: Path) -> list[np.ndarray]:
    """The parameters of an inference folder, in the order in which their layers were made.

    A program sorts them by name, and Paddle counts names up from process to process: `linear_10` comes before `linear_9`.
    """
    values = [one.numpy() for one in paddle.jit.load(str(folder / "inference")).state_dict().values()]
    program = folder / "inference.json"
    if not program.is_file():  # of Paddle 2
        return values
    operations = json.loads(program.read_text("utf-8"))["program"]["regions"][0]["blocks"][0]["ops"]
    names = sorted(one["A"][-1] for one in operations if one["#"] == "p")
    order = sorted(
        range(len(names)),
        key=lambda place: [int(one) if one.isdecimal() else one for one in NUMBER.split(names[place])],
    )
    return [values[place] for place in order]


NUMBER = re.compile(r"(\d+)")


def exported_form(network: nn.Layer) -> nn.Layer:
    """The same parameters with the sigmoid at the end, as inference folders have it."""
    if isinstance(network, Trained):
        return MultiLabelClassifier(network.backbone, network.head)
    return WithSigmoid(network)


def export(
    values: dict[str, np.ndarray], job: FinetuneJob, classes: tuple[str, ...], threshold: float, folder: Path
) -> None:
    """Write weights as an inference folder that `mlcls label --model` and PaddleX open."""
    network = build(job.network, len(classes), 0, job.head)
    network.set_state_dict({name: paddle.to_tensor(value) for name, value in values.items()})
    preprocess = preprocess_of(job)
    export_network(exported_form(network), preprocess.input_size[0], folder)
    write_config(folder, network_spec(job.network).name, preprocess, classes, round(threshold, 4))
