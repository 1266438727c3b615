"""Training batches through Ray Data: CPU tasks decode and augment while the device trains. The same seed makes the same batches, also
after a resume in the middle of an epoch.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import ray
import ray.data
from ray.data.extensions import ArrowTensorArray

from mlcls_ray.datasets.formats import Dataset
from mlcls_ray.errors import ImageError
from mlcls_ray.images.decode import decode
from mlcls_ray.images.preprocess import Preprocess
from mlcls_ray.job.ray_private import pause_scheduling_loop
from mlcls_ray.train.augment import AugmentedImage, augment_image
from mlcls_ray.train.distributed import ProcessGroup
from mlcls_ray.train.sized_job import SizedAugment, SizedJob

PATH, TARGETS, KNOWN, PLACE, PIXELS, MAPS = "path", "targets", "known", "place", "pixels", "maps"
PREFETCHED_BATCHES = 2


class PrepareBatch:
    """Rows → pixels uint8 [N, H, W, 3], targets and known float32 [N, C], and maps float32 [N, C, h, w] if the rows have maps.

    An image that cannot be read becomes grey, with all of its targets unknown.
    """

    def __init__(self, size: tuple[int, int], augment: SizedAugment, seed: tuple[int, int]) -> None:
        """`size` is (width, height); `seed` is the job's seed and the epoch."""
        self.size, self.augment, self.seed = size, augment, seed

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        with ThreadPoolExecutor(2) as threads:
            images = list(threads.map(self._augment, batch[PATH], batch[PLACE]))
        known = np.stack(list(batch[KNOWN])).astype(np.float32)
        known[[row for row, image in enumerate(images) if image is None]] = 0.0
        width, height = self.size
        grey = np.full((height, width, 3), 128, np.uint8)
        prepared = {
            PIXELS: np.stack([grey if image is None else image.pixels for image in images]),
            TARGETS: np.stack(list(batch[TARGETS])).astype(np.float32),
            KNOWN: known,
        }
        if MAPS in batch:
            is_mirrored = np.array([image is not None and image.is_mirrored for image in images])[:, None, None, None]
            maps = np.where(is_mirrored, batch[MAPS][..., ::-1], batch[MAPS])
            prepared[MAPS] = maps.astype(np.float32) / 255
        return prepared

    def _augment(self, path: str, place: int) -> AugmentedImage | None:
        random = np.random.default_rng((*self.seed, int(place)))
        try:
            return augment_image(decode(Path(path).read_bytes()).image, self.size, self.augment, random)
        except (OSError, ImageError):
            return None


def epoch_order(targets: np.ndarray, job: SizedJob, epoch: int) -> np.ndarray:
    """Return the row numbers of one epoch, int64 [N]: a permutation, or a weighted draw with `class_balance_power`."""
    random = np.random.default_rng((job.seed, epoch))
    count = len(targets)
    if job.class_balance_power == 0:
        return random.permutation(count)
    positives = np.maximum((targets > 0.5).sum(axis=0), 1)
    rarity = np.where(targets > 0.5, positives.max() / positives, 1.0).max(axis=1)
    weights = rarity**job.class_balance_power
    return random.choice(count, count, p=weights / weights.sum())


def epoch_batches(
    data: Dataset, job: SizedJob, preprocess: Preprocess, epoch: int, skip: int, group: ProcessGroup
) -> Iterator[dict[str, np.ndarray]]:
    """Yield this process's share of the batches of one epoch, without the first `skip`.

    An incomplete batch at the end of the epoch is dropped, unless it is the only one.
    """
    order = epoch_order(data.targets, job, epoch)
    size = min(job.batch_size, len(order))
    places = np.arange(skip * size, len(order) // size * size)
    if not len(places):
        return
    places = places.reshape(-1, size)[:, list(group.shard(size))].ravel()
    rows = order[places]
    known = ~np.isnan(data.targets[rows])
    table = pa.table(
        {
            PATH: [str(data.paths[row]) for row in rows],
            PLACE: places,
            TARGETS: list(np.nan_to_num(data.targets[rows])),
            KNOWN: list(known.astype(np.float32)),
            **({} if data.maps is None else {MAPS: ArrowTensorArray.from_numpy(data.maps[rows])}),
        }
    )
    shard_size = len(group.shard(size))
    blocks = [table.slice(start, shard_size) for start in range(0, len(rows), shard_size)]
    prepare = PrepareBatch(preprocess.input_size, job.augment, (job.seed, epoch))
    batches = ray.data.from_arrow(blocks).map_batches(prepare, batch_size=None, num_cpus=1)
    batches.context.execution_options.preserve_order = True
    pause_scheduling_loop(batches)
    yield from batches.iter_batches(batch_size=shard_size, prefetch_batches=PREFETCHED_BATCHES, drop_last=True)
