"""What the starter model starts from: EfficientNet-Lite0 features, frozen, under a linear head for the COCO-80 classes; and the data set
that it is then fine-tuned on.

    python -m mlcls_ray.training.starter WEIGHTS.safetensors DATA OUT

WEIGHTS from scripts/convert_efficientnet_lite0.py; DATA holds `coco_mini/` and `coco_pool/`. OUT gets `model/` and `data/`.
`scripts/build_starter` runs all steps.
"""

from __future__ import annotations

import json
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import paddle
from paddle import nn
from safetensors.numpy import load_file

from mlcls_ray.engines.device import parse_device
from mlcls_ray.engines.paddle_inference import PaddleEngine
from mlcls_ray.images.decode import decode
from mlcls_ray.images.preprocess import Preprocess
from mlcls_ray.labels.metrics import micro_f1, per_class_average_precision
from mlcls_ray.labels.vocabulary import read_vocabulary, write_vocabulary
from mlcls_ray.models.artifact import Model, load_model
from mlcls_ray.models.export import export_network, write_config
from mlcls_ray.models.heads import MultiLabelClassifier, PooledLinearHead, pool
from mlcls_ray.models.networks.efficientnet_lite import FEATURE_CHANNELS, EfficientNetLite0
from mlcls_ray.training.dataset import Dataset, read_dataset, write_list
from mlcls_ray.training.linear_head import LinearHead, best_threshold, calibrate, fit, sigmoid

NAME = "EfficientNet-Lite0_ML"
INPUT_SIZE = 320
PREPROCESS = Preprocess(
    size=(INPUT_SIZE, INPUT_SIZE), backend="pil", interpolation="BILINEAR", mean=(0.5,) * 3, std=(0.5,) * 3
)
LABELLED_WEIGHT = 3
"""How much an image with complete labels counts against one with a teacher's scores."""
L2_CANDIDATES = (0.003, 0.01, 0.03)
FOLDS = 5
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


def read_pool(folder: Path) -> Dataset:
    """The images with a teacher's scores; where a true label is known, it stands instead of the score."""
    with np.load(folder / "teacher_scores.npz", allow_pickle=False) as teacher:
        targets = np.where(teacher["annotated"] == 1, teacher["labels"], teacher["scores"]).astype(np.float32)
        names = [Path(str(name)).name for name in teacher["names"]]
    return Dataset([folder / "images" / name for name in names], targets)


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
                batches.append(self.engine.score(pixels[:, :, ::-1] if flip else pixels))
        return np.concatenate(batches)


def _pixels(path: Path) -> np.ndarray:
    return PREPROCESS.to_pixels(decode(path.read_bytes()).image)


def fit_head(
    labelled: np.ndarray, flipped: np.ndarray, train: Dataset, soft: np.ndarray, pooled: Dataset
) -> tuple[LinearHead, float, float]:
    """Choose the penalty and the threshold by cross-validation on the labelled images, then fit on everything.

    Returns the head, its threshold and the penalty.
    """
    folds = np.random.RandomState(0).permutation(len(labelled)) % FOLDS
    pool_weight = np.ones(len(soft))
    best: tuple[float, float, np.ndarray] | None = None
    for l2 in L2_CANDIDATES:
        held_out = np.zeros_like(train.targets)
        for fold in range(FOLDS):
            kept = folds != fold
            head = fit(
                np.concatenate([labelled[kept], soft]),
                np.concatenate([train.targets[kept], pooled.targets]),
                np.concatenate([np.full(kept.sum(), LABELLED_WEIGHT), pool_weight]),
                l2,
                iterations=40,
            )
            held_out[~kept] = head.logits(labelled[~kept])
        value = float(np.nanmean(per_class_average_precision(held_out, train.targets)))
        print(f"l2 {l2}: out-of-fold mAP {value:.4f}", flush=True)
        if best is None or value > best[0]:
            best = (value, l2, held_out)
    assert best is not None
    _, l2, held_out = best
    identity = LinearHead(np.eye(held_out.shape[1], dtype=np.float32), np.zeros(held_out.shape[1], dtype=np.float32))
    threshold = best_threshold(sigmoid(calibrate(identity, held_out, train.targets).logits(held_out)), train.targets)
    head = fit(
        np.concatenate([labelled, flipped, soft]),
        np.concatenate([train.targets, train.targets, pooled.targets]),
        np.concatenate([np.full(2 * len(labelled), LABELLED_WEIGHT / 2), pool_weight]),
        l2,
    )
    return calibrate(head, held_out, train.targets), threshold, l2


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


def write_data(data: Path, out: Path) -> None:
    """The lists to fine-tune on: labelled photographs as often as they count, and those with a teacher's scores; dev as it is."""
    vocabulary = read_vocabulary(data / "coco_mini" / "label.txt")
    train, dev = (read_dataset(data / "coco_mini" / f"{name}.txt", len(vocabulary)) for name in ("train", "dev"))
    pooled = read_pool(data / "coco_pool")
    out.mkdir(parents=True, exist_ok=True)
    write_vocabulary(out / "label.txt", vocabulary)
    targets = np.concatenate([*[train.targets] * LABELLED_WEIGHT, pooled.targets])
    write_list(out / "train.txt", Dataset([*train.paths * LABELLED_WEIGHT, *pooled.paths], targets))
    write_list(out / "dev.txt", dev)


def build(weights: Path, data: Path, out: Path) -> None:
    """Fit the head and export; prints the evaluation on dev, which is used for nothing else."""
    vocabulary = read_vocabulary(data / "coco_mini" / "label.txt")
    train = read_dataset(data / "coco_mini" / "train.txt", len(vocabulary))
    pooled = read_pool(data / "coco_pool")
    backbone = load_backbone(weights)
    with tempfile.TemporaryDirectory() as folder:
        reader = FeatureReader(backbone, Path(folder))
        labelled, flipped = reader.read(train.paths), reader.read(train.paths, flip=True)
        soft = reader.read(pooled.paths)
    head, threshold, l2 = fit_head(labelled, flipped, train, soft, pooled)
    layer = PooledLinearHead(FEATURE_CHANNELS, len(vocabulary))
    layer.fc.weight.set_value(head.weight)
    layer.fc.bias.set_value(head.bias)
    export_network(MultiLabelClassifier(backbone, layer), INPUT_SIZE, out)
    write_config(out, NAME, PREPROCESS, vocabulary, threshold)
    result = evaluate(load_model(out), read_dataset(data / "coco_mini" / "dev.txt", len(vocabulary)))
    print(json.dumps({"l2": l2, "threshold": threshold, "dev": result}, indent=1))


if __name__ == "__main__":
    weights, data, out = (Path(argument) for argument in sys.argv[1:4])
    write_data(data, out / "data")
    build(weights, data, out / "model")
