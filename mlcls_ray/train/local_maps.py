"""Score maps of training images: a teacher's scores at each position, from which the head `pooled_local` learns its local logits."""

from __future__ import annotations

import numpy as np
import paddle
from paddle import nn

from mlcls_ray.errors import UsageError
from mlcls_ray.images.preprocess import Preprocess
from mlcls_ray.models.heads import LogitClassifier, PooledLocalHead
from mlcls_ray.train.sized_job import SizedJob

NAME = "train_maps.npy"


def read_maps(job: SizedJob, network: nn.Layer, preprocess: Preprocess, images: int) -> np.ndarray | None:
    """Memory-map the score maps uint8 [N, C, h, w]: scores times 255 at each position of each image. None if the job uses none.

    Raises:
        UsageError: the maps cannot be read or do not fit the network, or augmentation would move the images against their maps.
    """
    if not job.distill.local_weight:
        return None
    if not isinstance(network, LogitClassifier) or not isinstance(network.head, PooledLocalHead):
        raise UsageError(
            "distill.local_weight needs a network that ends in the head pooled_local: give --head pooled_local"
        )
    if job.augment.randaugment_n or job.augment.min_crop_area < 1:
        raise UsageError(
            "distill.local_weight needs augment.randaugment_n 0 and augment.min_crop_area 1: maps belong to whole images"
        )
    path = job.data / NAME
    try:
        maps: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UsageError(f"distill.local_weight: '{path}' cannot be read: {error}") from None
    width, height = preprocess.input_size
    network.eval()  # in training mode the black image would change the statistics of the norms
    with paddle.no_grad():
        local_logits = network.head.with_maps(network.backbone(paddle.zeros([1, 3, height, width])))[1]
    expected = (images, *local_logits.shape[1:])
    if maps.dtype != np.uint8 or maps.shape != expected:
        raise UsageError(f"'{path}' holds {maps.dtype} {list(maps.shape)}: expected uint8 {list(expected)}")
    return maps
