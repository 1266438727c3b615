"""Everything that a training needs, read and checked before it starts."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import paddle
from paddle import nn

from mlcls_ray.datasets.formats import SUFFIXES, Dataset
from mlcls_ray.datasets.split import find_split, read_classes, read_split
from mlcls_ray.engines.devices import check_paddle_device
from mlcls_ray.errors import UsageError
from mlcls_ray.images.preprocess import Preprocess
from mlcls_ray.models.networks import network_spec
from mlcls_ray.models.networks.spec import NetworkSpec
from mlcls_ray.train.config import FinetuneJob
from mlcls_ray.train.local_maps import read_maps
from mlcls_ray.train.networks import InitialWeights, build, load_initial_weights, preprocess_of
from mlcls_ray.train.sized_job import SizedJob, size_job


class Setup(NamedTuple):
    """A job with its data, and its network filled with the initial weights."""

    job: SizedJob
    spec: NetworkSpec
    classes: tuple[str, ...]
    train: Dataset
    dev: Dataset
    preprocess: Preprocess
    network: nn.Layer
    initial: InitialWeights


def prepare(job: FinetuneJob, spec: NetworkSpec | None = None) -> Setup:
    """Read the data, build the network and check both. `spec`: the network to train instead of the one that the job names.

    Raises:
        UsageError: names what is wrong.
    """
    device = job.device
    check_paddle_device(device)
    paddle.set_device("cpu" if device.is_cpu else f"{device.kind}:{device.index}")
    spec = spec or network_spec(job.network)
    train_file, dev_file = _split_file(job.data, "train"), _split_file(job.data, "dev")
    classes = read_classes(job.data, train_file)
    train, dev = _read_images(train_file, classes), _read_images(dev_file, classes)
    sized = size_job(job, len(train.paths), is_trained=(job.init_from or spec.initial_weights) is not None)
    network = build(spec, len(classes), job.seed, job.head)
    initial = load_initial_weights(network, spec, job.init_from, classes, job.input_size)
    preprocess = preprocess_of(spec, job.input_size)
    maps = read_maps(sized, network, preprocess, len(train.paths))
    return Setup(
        job=sized,
        spec=spec,
        classes=classes,
        train=train._replace(maps=maps),
        dev=dev,
        preprocess=preprocess,
        network=network,
        initial=initial,
    )


def _split_file(folder: Path, name: str) -> Path:
    path = find_split(folder, name)
    if path is None:
        raise UsageError(f"'{folder}' has no {name}.txt (or {', '.join(SUFFIXES[1:])})")
    return path


def _read_images(path: Path, classes: tuple[str, ...]) -> Dataset:
    data = read_split(path, classes)
    missing = [image for image in data.paths if not image.is_file()]
    if missing:
        raise UsageError(
            f"{len(missing)} images of '{path}' are missing, the first is {missing[0]}; `mlcls dataset check` lists all"
        )
    return data
