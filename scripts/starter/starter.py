"""Build the starter model: EfficientNet-Lite0 with a head that looks at each position, both distilled from a detector.

    python -m starter.starter prepare WEIGHTS.safetensors TEACHER.json DATA OUT
    mlcls finetune --config scripts/starter/finetune.yaml --data OUT/data --init-from OUT/start.safetensors --out OUT/finetuned-0   (and -1)
    python -m starter.starter finish DATA OUT OUT/finetuned-0 OUT/finetuned-1

WEIGHTS comes from scripts/starter/convert_efficientnet_lite0.py; TEACHER is the graph that `teacher` reads; DATA has the folders
`coco_mini/` and `coco_pool/`. OUT gets `views/`, `data/`, the initial weights of the fine-tuning, and at last `package/`.
`scripts/starter/build` runs all of this.

The weights learn from the pool alone. The labeled photographs are used twice: first they calibrate the teacher; at the end they choose the
share of the fine-tuned weights, and calibrate scores and thresholds.
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import paddle
import yaml
from safetensors.numpy import load_file, save_file

from mlcls_ray.datasets.formats import Dataset, read_dataset, write_list
from mlcls_ray.images.decode import decode
from mlcls_ray.labels.metrics import per_class_average_precision
from mlcls_ray.labels.vocabulary import read_vocabulary, write_vocabulary
from mlcls_ray.models.artifact import THRESHOLDS, load_model
from mlcls_ray.models.heads import MultiLabelClassifier, PooledLocalHead
from mlcls_ray.models.networks.efficientnet_lite import FEATURE_CHANNELS, STRIDE, EfficientNetLite0
from mlcls_ray.train import checkpoints, local_maps
from starter.initial_network import fit_head, fold_norm_scales, load_backbone
from starter.linear_head import as_logits, calibrate, expected_threshold, sigmoid, thresholds_by_class
from starter.scoring import BATCH_SIZE, INPUT_SIZE, evaluate, export, score
from starter.teacher import MIN_SCORE, Detections, Teacher
from starter.views import SIZE, write_views

LABELED_WEIGHT = 3
"""Weight of an image with true labels in the calibration of the teacher; an image of the pool has weight 1."""
SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Shares of the fine-tuned weights that are tried; the rest are the initial weights (Wortsman et al., arXiv 2109.01903). The fine-tuned
weights are the mean of several trainings (Wortsman et al., arXiv 2203.05482).
"""
CALIBRATION_RIDGE = 0.0005
START = "start.safetensors"


def prepare(weights: Path, graph: Path, data: Path, out: Path) -> None:
    """Write the data of the fine-tuning: views of the pool with the teacher's scores and score maps; and its initial weights."""
    vocabulary = read_vocabulary(data / "coco_mini" / "label.txt")
    classes = len(vocabulary)
    labeled, pooled = read_dataset(data / "coco_mini" / "train.txt", classes), read_pool(data / "coco_pool")
    detections = detect(Teacher(graph), [*labeled.paths, *pooled.paths])
    max_logits = as_logits(np.stack([image.max_scores(classes) for image in detections]))
    labeled_logits, pool_logits = max_logits[: len(labeled.paths)], max_logits[len(labeled.paths) :]
    scale = calibrate(
        np.concatenate([*[labeled_logits] * LABELED_WEIGHT, pool_logits]),
        np.concatenate([*[labeled.targets] * LABELED_WEIGHT, pooled.targets]),
    )

    def score_map(image: Detections, size: int) -> np.ndarray:
        side = size // STRIDE
        scores = image.score_map(classes, side).reshape(classes, -1).T
        calibrated = sigmoid(scale.logits(as_logits(scores))).T.reshape(classes, side, side)
        return np.round(255 * calibrated).astype(np.uint8)

    pool_detections = detections[len(labeled.paths) :]
    views = write_views(pooled.paths, out / "views")
    view_detections = [pool_detections[view.row].crop(view.box) for view in views]
    targets = np.stack(
        [
            pooled.targets[view.row]
            * visible_share(pool_detections[view.row].max_scores(classes), visible.max_scores(classes))
            for view, visible in zip(views, view_detections, strict=True)
        ]
    )
    lists = out / "data"
    lists.mkdir(parents=True, exist_ok=True)
    write_vocabulary(lists / "label.txt", vocabulary)
    write_list(lists / "train.txt", [view.path for view in views], targets)
    np.save(lists / local_maps.NAME, np.stack([score_map(visible, SIZE) for visible in view_detections]))
    write_list(lists / "dev.txt", labeled.paths, labeled.targets)
    backbone = fold_norm_scales(load_backbone(weights))
    head = fit_head(backbone, pooled, np.stack([score_map(image, INPUT_SIZE) for image in pool_detections]))
    network = MultiLabelClassifier(backbone, head)
    save_file({name: value.numpy() for name, value in network.state_dict().items()}, out / START)


def read_pool(folder: Path) -> Dataset:
    """Read the images with a teacher's scores. A true label, where it is known, replaces the score."""
    with np.load(folder / "teacher_scores.npz", allow_pickle=False) as teacher:
        targets = np.where(teacher["annotated"] == 1, teacher["labels"], teacher["scores"]).astype(np.float32)
        names = [Path(str(name)).name for name in teacher["names"]]
    return Dataset([folder / "images" / name for name in names], targets)


def detect(teacher: Teacher, paths: list[Path]) -> list[Detections]:
    """Detect the objects in each image."""
    detections = []
    with ThreadPoolExecutor(2) as threads:
        for start in range(0, len(paths), BATCH_SIZE):
            images = threads.map(lambda path: decode(path.read_bytes()).image, paths[start : start + BATCH_SIZE])
            detections += teacher.detect(list(images))
    return detections


def visible_share(whole: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Return the highest score in a part of an image divided by that in the whole, float32 [C]; 1 for classes without detections."""
    return np.where(whole > 0, part / np.maximum(whole, MIN_SCORE), 1.0).astype(np.float32)


def finish(data: Path, out: Path, *finetuned: Path) -> None:
    """Mix initial and fine-tuned weights, calibrate scores and thresholds on the labeled photographs, and export.

    Prints the evaluation on dev, which is used for nothing else.
    """
    vocabulary = read_vocabulary(data / "coco_mini" / "label.txt")
    labeled = read_dataset(data / "coco_mini" / "train.txt", len(vocabulary))
    network = MultiLabelClassifier(EfficientNetLite0(), PooledLocalHead(FEATURE_CHANNELS, len(vocabulary)))
    initial = load_file(out / START)
    trainings = [
        checkpoints.read_arrays(training / checkpoints.FOLDER / checkpoints.BEST, checkpoints.AVERAGED)
        for training in finetuned
    ]
    learned = {name: np.mean([training[name] for training in trainings], axis=0) for name in initial}
    folder = out / "package"

    def mix(share: float) -> None:
        """Set the network's weights to a share of the learned ones and the rest of the initial ones."""
        network.set_state_dict(
            {name: paddle.to_tensor(share * learned[name] + (1 - share) * value) for name, value in initial.items()}
        )

    best_map, best_share, logits = -1.0, 0.0, np.empty(0)
    for share in SHARES:
        mix(share)
        share_logits = as_logits(score(export(network, vocabulary, 0.5, folder), labeled.paths), 1e-7)
        share_map = float(np.nanmean(per_class_average_precision(share_logits, labeled.targets)))
        print(f"share {share} of the learned weights: mAP {100 * share_map:.2f} on the labeled photographs", flush=True)
        if share_map > best_map:
            best_map, best_share, logits = share_map, share, share_logits
    mix(best_share)
    scale = calibrate(logits, labeled.targets, CALIBRATION_RIDGE, has_tail=True)
    network.tail, head = scale.tail, network.head
    for parameter in (head.fc.weight, head.local.weight, head.local.bias):
        parameter.set_value(parameter * scale.slope)
    head.fc.bias.set_value(head.fc.bias * scale.slope + paddle.to_tensor(scale.offset))
    scores = sigmoid(scale.logits(logits))
    threshold = round(expected_threshold(scores.ravel()), 2)
    export(network, vocabulary, threshold, folder)
    thresholds = zip(vocabulary, thresholds_by_class(scores), strict=True)
    by_class = {name: round(float(value), 3) for name, value in thresholds}
    (folder / THRESHOLDS).write_text(yaml.safe_dump(by_class, sort_keys=False), encoding="utf-8")
    result = evaluate(load_model(folder), read_dataset(data / "coco_mini" / "dev.txt", len(vocabulary)))
    print(json.dumps({"threshold": threshold, "dev": result}, indent=1))


if __name__ == "__main__":
    step, *paths = sys.argv[1:]
    (prepare if step == "prepare" else finish)(*(Path(path) for path in paths))
