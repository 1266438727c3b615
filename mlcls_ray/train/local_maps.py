"""What is where in the training images: scores at each position, for the local logits of the head `pooled_local` to learn from."""

from __future__ import annotations

import numpy as np
import paddle
from paddle import nn

from mlcls_ray.errors import UsageError
from mlcls_ray.images.preprocess import Preprocess
from mlcls_ray.models.heads import LogitClassifier as Trained
from mlcls_ray.models.heads import PooledLocalHead
from mlcls_ray.train.config import FinetuneJob

NAME = "train_maps.npy"


def read_maps(job: FinetuneJob, network: nn.Layer, preprocess: Preprocess, images: int) -> np.ndarray | None:
    """uint8 [N, C, h, w]: the scores times 255 at each position of each image; left on disk. None where the job asks for none.

    Raises:
        UsageError: they cannot be read, do not fit the network, or the images would be changed so that they no longer fit.
    """
    if not job.loss.local:
        return None
    if not isinstance(network, Trained) or not isinstance(network.head, PooledLocalHead):
        raise UsageError("loss.local needs a network that ends in the head pooled_local: give --head pooled_local")
    if job.augment.operations or job.augment.crop < 1:
        raise UsageError(
            "loss.local needs augment.operations 0 and augment.crop 1: maps are of whole images as they are"
        )
    path = job.data / NAME
    try:
        maps: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UsageError(f"loss.local: '{path}' cannot be read: {error}") from None
    width, height = preprocess.input_size
    network.eval()  # else the black image would go into the statistics of its norms
    with paddle.no_grad():
        given = network.head.with_maps(network.backbone(paddle.zeros([1, 3, height, width])))[1]
    expected = (images, *given.shape[1:])
    if maps.dtype != np.uint8 or maps.shape != expected:
        raise UsageError(f"'{path}' holds {maps.dtype} {list(maps.shape)}: expected uint8 {list(expected)}")
    return maps
