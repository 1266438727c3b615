"""How the starter model is made: EfficientNet-Lite0 under a head that looks everywhere, both taught by a detector.

    python -m starter.starter prepare WEIGHTS.safetensors TEACHER.json DATA OUT
    mlcls finetune --config scripts/starter/finetune.yaml --data OUT/data --start OUT/start.safetensors --out OUT/finetuned-0   (and -1)
    python -m starter.starter finish DATA OUT OUT/finetuned-0 OUT/finetuned-1

WEIGHTS from scripts/starter/convert_efficientnet_lite0.py; TEACHER as `teacher` reads it; DATA holds `coco_mini/` and `coco_pool/`. OUT
gets `views/`, `data/`, what the fine-tuning starts from, and at last `package/`. `scripts/starter/build` runs all.

The weights learn from the pool alone. The labelled photographs calibrate the teacher before; after, they choose how much of what was learnt
is kept, and calibrate scores and thresholds.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import paddle
import yaml
from paddle import nn
from PIL import Image, ImageEnhance
from safetensors.numpy import load_file, save_file

from mlcls_ray.datasets.formats import Dataset, read_dataset, write_list
from mlcls_ray.devices import parse_device
from mlcls_ray.engines.paddle import PaddleEngine
from mlcls_ray.images.decode import decode
from mlcls_ray.images.preprocess import Preprocess
from mlcls_ray.labels.metrics import micro_f1, per_class_average_precision
from mlcls_ray.labels.select import above_threshold
from mlcls_ray.labels.vocabulary import read_vocabulary, write_vocabulary
from mlcls_ray.models.artifact import THRESHOLDS, Model, load_model
from mlcls_ray.models.convert.paddle import export_network, write_config
from mlcls_ray.models.heads import MultiLabelClassifier, PooledLocalHead, largest, pool
from mlcls_ray.models.networks.efficientnet_lite import BATCH_NORM_EPSILON, FEATURE_CHANNELS, STRIDE, EfficientNetLite0
from mlcls_ray.train import checkpoints, local_maps
from mlcls_ray.train.augment import draw_sides
from mlcls_ray.train.finetune import CHECKPOINTS
from starter.linear_head import (
    Moments,
    as_logits,
    calibrate,
    expected_threshold,
    sigmoid,
    thresholds_by_class,
)
from starter.teacher import LEAST_SCORE, Found, Teacher

NAME = "EfficientNet-Lite0_ML"
INPUT_SIZE = 384
VIEW_SIZE = 320
"""As `scripts/starter/finetune.yaml` has it."""
PREPROCESS = Preprocess(
    size=(INPUT_SIZE, INPUT_SIZE), backend="pil", interpolation="BILINEAR", mean=(0.5,) * 3, std=(0.5,) * 3
)
LABELLED_WEIGHT = 3
"""How much an image with complete labels counts against one with a teacher's scores."""
L2, LOCAL_L2 = 0.6, 0.5
MARGIN, LOCAL_MARGIN = 0.03, 0.02
"""How near to 0 and 1 a teacher's scores may come before their logits are learnt from: 0.01 to 0.05 do about as well."""
PARTS, WHOLE = 3, 1
"""Views of each image of the pool: parts of it, and the whole."""
WHOLE_IMAGE = np.array([0.0, 0.0, 1.0, 1.0])
LEAST_AREA = 0.25
"""Of a part."""
COLOURS = 0.3
"""How much brighter or darker, paler or stronger a view may be."""
SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""How much of the fine-tuned weights, of which the mean is taken (Wortsman et al., arXiv 2203.05482): the rest is what they started from
(Wortsman et al., arXiv 2109.01903).
"""
SCORE_RIDGE = 0.0005
"""For calibrating what is exported."""
START = "start.safetensors"
BATCH = 16


def load_backbone(weights: Path) -> EfficientNetLite0:
    """The backbone with its ImageNet weights, which come in the order of its parameters."""
    backbone = EfficientNetLite0()
    tensors = load_file(weights)
    parameters = backbone.state_dict()
    for (name, parameter), key in zip(parameters.items(), sorted(tensors), strict=False):
        if tuple(parameter.shape) != tensors[key].shape:
            raise ValueError(f"{key} {tensors[key].shape} does not fit {name} {tuple(parameter.shape)}")
        parameter.set_value(tensors[key])
    return backbone


def read_pool(folder: Path) -> Dataset:
    """The images with a teacher's scores; where a true label is known, it stands instead of the score."""
    with np.load(folder / "teacher_scores.npz", allow_pickle=False) as teacher:
        targets = np.where(teacher["annotated"] == 1, teacher["labels"], teacher["scores"]).astype(np.float32)
        names = [Path(str(name)).name for name in teacher["names"]]
    return Dataset([folder / "images" / name for name in names], targets)


def without_scales(backbone: EfficientNetLite0) -> EfficientNetLite0:
    """The same function, each norm's factor in the convolution before it: steps of one size then move all channels alike."""
    layers = [layer for layer in backbone.sublayers() if isinstance(layer, nn.Conv2D | nn.BatchNorm2D)]
    for convolution, norm in zip(layers[::2], layers[1::2], strict=True):
        factor = norm.weight / (norm._variance + BATCH_NORM_EPSILON).sqrt()
        convolution.weight.set_value(convolution.weight * factor.reshape([-1, 1, 1, 1]))
        norm._mean.set_value(norm._mean * factor)
        norm._variance.set_value(paddle.full_like(norm._variance, 1 - BATCH_NORM_EPSILON))
        norm.weight.set_value(paddle.ones_like(norm.weight))
    return backbone


class View(NamedTuple):
    """A file, the row of the image that it shows, and the part of it [4] as x0 y0 x1 y1 in shares of its sides."""

    path: Path
    row: int
    part: np.ndarray


def write_views(pooled: Dataset, folder: Path) -> list[View]:
    """Each image whole and in parts, in other colours, as squares of the size that is learnt from."""
    folder.mkdir(parents=True, exist_ok=True)

    def cut(row: int) -> list[View]:
        image = Image.fromarray(decode(pooled.paths[row].read_bytes()).image)
        views = []
        for number in range(WHOLE + PARTS):
            random = np.random.default_rng((0, row, number))
            part = WHOLE_IMAGE if number < WHOLE else _part(random)
            left, top, right, bottom = (part * np.tile(image.size, 2)).tolist()
            picture = image.resize((VIEW_SIZE, VIEW_SIZE), Image.Resampling.BILINEAR, (left, top, right, bottom))
            for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
                picture = enhance(picture).enhance(random.uniform(1 - COLOURS, 1 + COLOURS))
            views.append(View(folder / f"{pooled.paths[row].stem}-{number}.jpg", row, part))
            picture.save(views[-1].path, quality=92)
        return views

    with ThreadPoolExecutor(2) as threads:
        return [view for one in threads.map(cut, range(len(pooled.paths))) for view in one]


def _part(random: np.random.Generator) -> np.ndarray:
    """A random part of at least LEAST_AREA."""
    sides = np.minimum(1, draw_sides(LEAST_AREA, random))
    low = random.uniform(0, 1, 2) * (1 - sides)
    return np.concatenate([low, low + sides])


def find_all(teacher: Teacher, paths: list[Path]) -> list[Found]:
    """What the teacher finds in each image."""
    found = []
    with ThreadPoolExecutor(2) as threads:
        for start in range(0, len(paths), BATCH):
            images = threads.map(lambda path: decode(path.read_bytes()).image, paths[start : start + BATCH])
            found += teacher.find(list(images))
    return found


def start_head(backbone: EfficientNetLite0, pooled: Dataset, maps: np.ndarray) -> PooledLocalHead:
    """The head on frozen features, by ridge regression: its local part of `maps` [N, C, h, w], its pooled part of what is lacking then."""
    head = PooledLocalHead(FEATURE_CHANNELS, pooled.targets.shape[1])
    local: Moments | None = None
    for rows, features in read_features(backbone, pooled.paths):
        told = as_logits(maps[rows] / np.float32(255), LOCAL_MARGIN)
        local = Moments.of(*(one.transpose(0, 2, 3, 1).reshape(-1, one.shape[1]) for one in (features, told))).plus(
            local
        )
    assert local is not None
    found = local.ridge(LOCAL_L2)
    head.local.weight.set_value(found.weight.T[:, :, None, None])
    head.local.bias.set_value(found.bias)
    pooled_part: Moments | None = None
    for rows, features in read_features(backbone, pooled.paths):
        with paddle.no_grad():
            x = paddle.to_tensor(features)
            lacking = as_logits(pooled.targets[rows], MARGIN) - head.SHARE * largest(head.local(x)).numpy()
            pooled_part = Moments.of(pool(x).numpy(), lacking).plus(pooled_part)
    assert pooled_part is not None
    found = pooled_part.ridge(L2)
    head.fc.weight.set_value(found.weight)
    head.fc.bias.set_value(found.bias)
    return head


def read_features(backbone: EfficientNetLite0, paths: list[Path]) -> Iterator[tuple[slice, np.ndarray]]:
    """Batches of feature maps float32 [n, 1280, h, w], each with its rows; by the engine that will run the model."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        export_network(backbone, INPUT_SIZE, folder)
        write_config(folder, "features", PREPROCESS, [str(number) for number in range(FEATURE_CHANNELS)], 0.5)
        yield from _run(load_model(folder), paths)


def _run(model: Model, paths: list[Path]) -> Iterator[tuple[slice, np.ndarray]]:
    engine = PaddleEngine(model, parse_device("cpu"), threads=2)

    def pixels(path: Path) -> np.ndarray:
        return model.preprocess.to_pixels(decode(path.read_bytes()).image)

    with ThreadPoolExecutor(2) as threads:
        for start in range(0, len(paths), BATCH):
            rows = slice(start, start + BATCH)
            yield rows, engine.run(np.stack(list(threads.map(pixels, paths[rows]))))


def scores_of(model: Model, paths: list[Path]) -> np.ndarray:
    """float32 [N, C]."""
    return np.concatenate([scores for _, scores in _run(model, paths)])


def evaluate(model: Model, dataset: Dataset) -> dict[str, object]:
    """mAP, micro-F1 at the model's thresholds, and the AP of each class."""
    scores = scores_of(model, dataset.paths)
    precisions = per_class_average_precision(scores, dataset.targets)
    predicted = above_threshold(scores, np.asarray(model.thresholds, dtype=np.float32))
    return {
        "images": len(dataset.paths),
        "mAP": round(100 * float(np.nanmean(precisions)), 2),
        "micro_f1": round(micro_f1(predicted, dataset.targets > 0.5), 4),
        "labels_per_image": round(float(predicted.sum(axis=1).mean()), 2),
        "average_precision": {
            name: {"AP": round(100 * float(value), 1), "positives": int(count)}
            for name, value, count in zip(model.vocabulary, precisions, dataset.targets.sum(axis=0), strict=True)
            if count
        },
    }


def export(network: MultiLabelClassifier, vocabulary: tuple[str, ...], threshold: float, out: Path) -> Model:
    export_network(network, INPUT_SIZE, out)
    write_config(out, NAME, PREPROCESS, vocabulary, threshold)
    return load_model(out)


def prepare(weights: Path, graph: Path, data: Path, out: Path) -> None:
    """What the fine-tuning needs: views of the pool with what the teacher finds in them, and a head on ImageNet's features."""
    vocabulary = read_vocabulary(data / "coco_mini" / "label.txt")
    classes = len(vocabulary)
    labelled, pooled = read_dataset(data / "coco_mini" / "train.txt", classes), read_pool(data / "coco_pool")
    teacher = Teacher(graph)
    whole = find_all(teacher, [*labelled.paths, *pooled.paths])
    greatest = as_logits(np.stack([one.greatest(classes) for one in whole]))
    known, told = greatest[: len(labelled.paths)], greatest[len(labelled.paths) :]
    scale = calibrate(
        np.concatenate([*[known] * LABELLED_WEIGHT, told]),
        np.concatenate([*[labelled.targets] * LABELLED_WEIGHT, pooled.targets]),
    )

    def calibrated(scores: np.ndarray) -> np.ndarray:
        return sigmoid(scale.logits(as_logits(scores)))

    def map_of(found: Found, size: int) -> np.ndarray:
        side = size // STRIDE
        maps = calibrated(found.map(classes, side).reshape(classes, -1).T).T.reshape(classes, side, side)
        return np.round(255 * maps).astype(np.uint8)

    found = whole[len(labelled.paths) :]
    views = write_views(pooled, out / "views")
    shown = [found[view.row].within(view.part) for view in views]
    targets = np.stack(
        [
            pooled.targets[view.row] * _kept(found[view.row].greatest(classes), one.greatest(classes))
            for view, one in zip(views, shown, strict=True)
        ]
    )
    lists = out / "data"
    lists.mkdir(parents=True, exist_ok=True)
    write_vocabulary(lists / "label.txt", vocabulary)
    write_list(lists / "train.txt", Dataset([view.path for view in views], targets))
    np.save(lists / local_maps.NAME, np.stack([map_of(one, VIEW_SIZE) for one in shown]))
    write_list(lists / "dev.txt", labelled)
    backbone = without_scales(load_backbone(weights))
    head = start_head(backbone, pooled, np.stack([map_of(one, INPUT_SIZE) for one in found]))
    start = MultiLabelClassifier(backbone, head)
    save_file({name: value.numpy() for name, value in start.state_dict().items()}, out / START)


def _kept(whole: np.ndarray, part: np.ndarray) -> np.ndarray:
    """How much of what an image shows a part of it shows, by the greatest scores [C] of both: all of what is found nowhere."""
    return np.where(whole > 0, part / np.maximum(whole, LEAST_SCORE), 1.0).astype(np.float32)


def finish(data: Path, out: Path, *finetuned: Path) -> None:
    """Of the mean of what was learnt keep as much as suits the labelled photographs, calibrate scores and thresholds by them, export.

    Prints the evaluation on dev, which is used for nothing else.
    """
    vocabulary = read_vocabulary(data / "coco_mini" / "label.txt")
    labelled = read_dataset(data / "coco_mini" / "train.txt", len(vocabulary))
    network = MultiLabelClassifier(EfficientNetLite0(), PooledLocalHead(FEATURE_CHANNELS, len(vocabulary)))
    start = load_file(out / START)
    several = [checkpoints.read_arrays(one / CHECKPOINTS / checkpoints.BEST, checkpoints.AVERAGED) for one in finetuned]
    learnt = {name: np.mean([one[name] for one in several], axis=0) for name in start}
    folder = out / "package"

    def mix(share: float) -> None:
        """Give the network so much of the learnt weights and the rest of those before."""
        network.set_state_dict(
            {name: paddle.to_tensor(share * learnt[name] + (1 - share) * value) for name, value in start.items()}
        )

    best, chosen, logits = -1.0, 0.0, np.empty(0)
    for share in SHARES:
        mix(share)
        given = as_logits(scores_of(export(network, vocabulary, 0.5, folder), labelled.paths), 1e-7)
        value = float(np.nanmean(per_class_average_precision(given, labelled.targets)))
        print(f"{share} of what was learnt: mAP {100 * value:.2f} on the labelled photographs", flush=True)
        if value > best:
            best, chosen, logits = value, share, given
    mix(chosen)
    scale = calibrate(logits, labelled.targets, SCORE_RIDGE, has_tail=True)
    network.tail, head = scale.tail, network.head
    for parameter in (head.fc.weight, head.local.weight, head.local.bias):
        parameter.set_value(parameter * scale.slope)
    head.fc.bias.set_value(head.fc.bias * scale.slope + paddle.to_tensor(scale.offset))
    scores = sigmoid(scale.logits(logits))
    threshold = round(expected_threshold(scores.ravel()), 2)
    export(network, vocabulary, threshold, folder)
    by_class = thresholds_by_class(scores)
    cuts = {name: round(float(value), 3) for name, value in zip(vocabulary, by_class, strict=True)}
    (folder / THRESHOLDS).write_text(yaml.safe_dump(cuts, sort_keys=False), encoding="utf-8")
    result = evaluate(load_model(folder), read_dataset(data / "coco_mini" / "dev.txt", len(vocabulary)))
    print(json.dumps({"threshold": threshold, "dev": result}, indent=1))


if __name__ == "__main__":
    step, *paths = sys.argv[1:]
    (prepare if step == "prepare" else finish)(*(Path(path) for path in paths))
