"""How the starter model is made: EfficientNet-Lite0's last blocks learn from a teacher's scores, and a linear head from complete labels.

    python -m mlcls_ray.training.starter prepare WEIGHTS.safetensors TEACHER.json DATA OUT
    mlcls finetune --config configs/finetune_starter.yaml --data OUT/data --start OUT/model --out OUT/finetuned
    python -m mlcls_ray.training.starter finish WEIGHTS.safetensors OUT/finetuned/checkpoints/best/averaged.safetensors DATA OUT

WEIGHTS from scripts/convert_efficientnet_lite0.py; TEACHER as `training.teacher` reads it; DATA holds `coco_mini/` and `coco_pool/`. OUT
gets `views/`, `data/` and `model/`, which the fine-tuning starts from, and at last `package/`. `scripts/build_starter` runs all.
"""

from __future__ import annotations

import json
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import paddle
import yaml
from paddle import nn
from PIL import Image
from safetensors.numpy import load_file

from mlcls_ray.engines.device import parse_device
from mlcls_ray.engines.paddle_inference import PaddleEngine
from mlcls_ray.images.decode import decode
from mlcls_ray.images.preprocess import Preprocess
from mlcls_ray.labels.metrics import micro_f1, per_class_average_precision
from mlcls_ray.labels.vocabulary import read_vocabulary, write_vocabulary
from mlcls_ray.models.artifact import THRESHOLDS, Model, load_model
from mlcls_ray.models.export import export_network, write_config
from mlcls_ray.models.heads import MultiLabelClassifier, PooledLinearHead, pool
from mlcls_ray.models.networks.efficientnet_lite import FEATURE_CHANNELS, EfficientNetLite0
from mlcls_ray.training.augment import augment_image
from mlcls_ray.training.config import Augment
from mlcls_ray.training.dataset import Dataset, read_dataset, write_list
from mlcls_ray.training.linear_head import (
    LinearHead,
    as_logits,
    best_threshold,
    calibrate,
    cross_fit,
    fit,
    sigmoid,
    thresholds_by_class,
)
from mlcls_ray.training.teacher import Teacher

NAME = "EfficientNet-Lite0_ML"
INPUT_SIZE = 384
PREPROCESS = Preprocess(
    size=(INPUT_SIZE, INPUT_SIZE), backend="pil", interpolation="BILINEAR", mean=(0.5,) * 3, std=(0.5,) * 3
)
LABELLED_WEIGHT = 3
"""How much an image with complete labels counts against one with a teacher's scores."""
L2 = 0.03
"""Best or nearly so for all features that were tried (0.003 to 0.1)."""
CROPS, FULL = 5, 2
"""Parts of each image of the pool that the fine-tuning sees, and how often it sees the whole."""
CROPPING = Augment(operations=0, magnitude=0, cutout=0.0, crop=0.2)
SHARES = (0.25, 0.5, 0.75)
"""How much of the fine-tuned backbone: the rest is the one it started from (Wortsman et al., arXiv 2109.01903)."""
BATCH = 16


class PooledFeatures(nn.Layer):
    """The backbone up to what the head's linear layer sees: float32 [N, 3, S, S] → [N, 2560]."""

    def __init__(self, backbone: EfficientNetLite0) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return pool(self.backbone(x))


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


def mixed_backbone(weights: Path, finetuned: dict[str, np.ndarray], share: float) -> EfficientNetLite0:
    """`share` of the fine-tuned weights (named `backbone.…`) and the rest of those with ImageNet's."""
    backbone = load_backbone(weights)
    for name, parameter in backbone.state_dict().items():
        parameter.set_value(share * finetuned[f"backbone.{name}"] + (1 - share) * parameter.numpy())
    return backbone


def read_pool(folder: Path) -> Dataset:
    """The images with a teacher's scores; where a true label is known, it stands instead of the score."""
    with np.load(folder / "teacher_scores.npz", allow_pickle=False) as teacher:
        targets = np.where(teacher["annotated"] == 1, teacher["labels"], teacher["scores"]).astype(np.float32)
        names = [Path(str(name)).name for name in teacher["names"]]
    return Dataset([folder / "images" / name for name in names], targets)


def write_views(pooled: Dataset, folder: Path) -> Dataset:
    """Cut CROPS parts out of each image, as squares of the input's size; without targets yet (NaN)."""
    folder.mkdir(parents=True, exist_ok=True)

    def cut(row: int) -> list[Path]:
        image = decode(pooled.paths[row].read_bytes()).image
        paths = [folder / f"{pooled.paths[row].stem}-{number}.jpg" for number in range(CROPS)]
        for number, path in enumerate(paths):
            part = augment_image(image, PREPROCESS.input_size, CROPPING, np.random.default_rng((0, row, number)))
            Image.fromarray(part).save(path, quality=92)
        return paths

    with ThreadPoolExecutor(2) as threads:
        paths = [path for one in threads.map(cut, range(len(pooled.paths))) for path in one]
    return Dataset(paths, np.full((len(paths), pooled.targets.shape[1]), np.nan, np.float32))


def teacher_logits(teacher: Teacher, paths: list[Path]) -> np.ndarray:
    """float32 [N, C], not calibrated."""
    batches = []
    with ThreadPoolExecutor(2) as threads:
        for start in range(0, len(paths), BATCH):
            images = threads.map(lambda path: decode(path.read_bytes()).image, paths[start : start + BATCH])
            batches.append(teacher.scores(list(images)))
    return as_logits(np.concatenate(batches))


class FeatureReader:
    """Frozen features of image files, through the engine that will run the model."""

    def __init__(self, backbone: EfficientNetLite0, folder: Path) -> None:
        export_network(PooledFeatures(backbone), INPUT_SIZE, folder)
        write_config(folder, "features", PREPROCESS, [str(number) for number in range(2 * FEATURE_CHANNELS)], 0.5)
        self.engine = PaddleEngine(load_model(folder), parse_device("cpu"), threads=2)

    def read(self, paths: list[Path], flip: bool = False) -> np.ndarray:
        """float32 [N, 2560]; `flip` mirrors the images."""
        batches = []
        with ThreadPoolExecutor(2) as threads:
            for start in range(0, len(paths), BATCH):
                pixels = np.stack(list(threads.map(_pixels, paths[start : start + BATCH])))
                batches.append(self.engine.run(pixels[:, :, ::-1] if flip else pixels))
        return np.concatenate(batches)


def read_features(backbone: EfficientNetLite0, paths: list[Path]) -> np.ndarray:
    """float32 [2N, 2560]: of the images, then of the mirrored images."""
    with tempfile.TemporaryDirectory() as folder:
        reader = FeatureReader(backbone, Path(folder))
        return np.concatenate([reader.read(paths), reader.read(paths, flip=True)])


def _pixels(path: Path) -> np.ndarray:
    return PREPROCESS.to_pixels(decode(path.read_bytes()).image)


def evaluate(model: Model, dataset: Dataset) -> dict[str, object]:
    """mAP, micro-F1 at the model's thresholds, and the AP of each class."""
    engine = PaddleEngine(model, parse_device("cpu"), threads=2)
    scores = np.concatenate(
        [
            engine.score(np.stack([_pixels(path) for path in dataset.paths[start : start + BATCH]]))
            for start in range(0, len(dataset.paths), BATCH)
        ]
    )
    precisions = per_class_average_precision(scores, dataset.targets)
    predicted = scores > np.asarray(model.thresholds, dtype=np.float32)
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


def export(
    backbone: EfficientNetLite0, head: LinearHead, vocabulary: tuple[str, ...], threshold: float, out: Path
) -> None:
    layer = PooledLinearHead(FEATURE_CHANNELS, len(vocabulary))
    layer.fc.weight.set_value(head.weight)
    layer.fc.bias.set_value(head.bias)
    export_network(MultiLabelClassifier(backbone, layer), INPUT_SIZE, out)
    write_config(out, NAME, PREPROCESS, vocabulary, threshold)


def prepare(weights: Path, graph: Path, data: Path, out: Path) -> None:
    """What the fine-tuning needs: views of the pool with the teacher's scores, and a head on ImageNet's features to start from.

    The labelled photographs are only its dev set: the backbone learns from none of them, so that they can judge it.
    """
    vocabulary = read_vocabulary(data / "coco_mini" / "label.txt")
    train = read_dataset(data / "coco_mini" / "train.txt", len(vocabulary))
    pooled = read_pool(data / "coco_pool")
    teacher = Teacher(graph)
    told = teacher_logits(teacher, [*train.paths, *pooled.paths])
    calibrated = calibrate(
        LinearHead.identity(len(vocabulary)),
        np.concatenate([*[told[: len(train.paths)]] * LABELLED_WEIGHT, told[len(train.paths) :]]),
        np.concatenate([*[train.targets] * LABELLED_WEIGHT, pooled.targets]),
    )
    views = write_views(pooled, out / "views")
    targets = sigmoid(calibrated.logits(teacher_logits(teacher, views.paths)))
    lists = out / "data"
    lists.mkdir(parents=True, exist_ok=True)
    write_vocabulary(lists / "label.txt", vocabulary)
    write_list(
        lists / "train.txt",
        Dataset([*pooled.paths * FULL, *views.paths], np.concatenate([*[pooled.targets] * FULL, targets])),
    )
    write_list(lists / "dev.txt", train)
    backbone = load_backbone(weights)
    features = read_features(backbone, pooled.paths)
    head = fit(features, np.concatenate([pooled.targets] * 2), np.ones(len(features)), L2)
    export(backbone, head, vocabulary, 0.25, out / "model")


def finish(weights: Path, finetuned: Path, data: Path, out: Path) -> None:
    """Take as much of the fine-tuned backbone as suits the labelled photographs, fit the head on everything, choose thresholds, export.

    All choices rest on out-of-fold scores. Prints the evaluation on dev, which is used for nothing else.
    """
    vocabulary = read_vocabulary(data / "coco_mini" / "label.txt")
    train = read_dataset(data / "coco_mini" / "train.txt", len(vocabulary))
    pooled = read_pool(data / "coco_pool")
    count = len(train.paths)
    targets = np.concatenate([train.targets, pooled.targets])
    weight = np.concatenate([np.full(count, float(LABELLED_WEIGHT)), np.ones(len(pooled.paths))])
    tensors = load_file(finetuned)
    best: tuple[float, EfficientNetLite0, np.ndarray, np.ndarray] | None = None
    for share in SHARES:
        backbone = mixed_backbone(weights, tensors, share)
        features = read_features(backbone, [*train.paths, *pooled.paths])
        held_out = cross_fit(features, targets, weight, L2)
        value = float(np.nanmean(per_class_average_precision(held_out[:count], train.targets)))
        print(f"{share} of the fine-tuned backbone: out-of-fold mAP {value:.4f}", flush=True)
        if best is None or value > best[0]:
            best = (value, backbone, features, held_out)
    assert best is not None
    _, backbone, features, held_out = best
    scale = calibrate(LinearHead.identity(len(vocabulary)), held_out[:count], train.targets)
    scores = sigmoid(scale.logits(held_out))
    threshold = best_threshold(scores[:count], train.targets)
    head = fit(features, np.concatenate([targets] * 2), np.concatenate([weight] * 2), L2)
    head = calibrate(head, held_out[:count], train.targets)
    folder = out / "package"
    export(backbone, head, vocabulary, threshold, folder)
    by_class = thresholds_by_class(scores, targets, weight, threshold)
    told = {name: round(float(value), 3) for name, value in zip(vocabulary, by_class, strict=True)}
    (folder / THRESHOLDS).write_text(yaml.safe_dump(told, sort_keys=False), encoding="utf-8")
    result = evaluate(load_model(folder), read_dataset(data / "coco_mini" / "dev.txt", len(vocabulary)))
    print(json.dumps({"threshold": threshold, "dev": result}, indent=1))


if __name__ == "__main__":
    step, *paths = sys.argv[1:]
    {"prepare": prepare, "finish": finish}[step](*(Path(path) for path in paths))
