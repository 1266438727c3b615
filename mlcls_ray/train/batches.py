"""Training batches through Ray Data: CPU tasks decode and augment while the device trains. The same seed makes the same batches, from
any step on.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import ray
import ray.data
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.data._internal.execution.streaming_executor import StreamingExecutor
from ray.data.extensions import ArrowTensorArray

from mlcls_ray.datasets.formats import Dataset
from mlcls_ray.errors import ImageError
from mlcls_ray.images.decode import decode
from mlcls_ray.images.preprocess import Preprocess
from mlcls_ray.train.augment import Augmented, augment_image
from mlcls_ray.train.config import Augment, FinetuneJob
from mlcls_ray.train.distributed import Processes

PATH, TARGETS, KNOWN, PLACE, PIXELS, MAPS = "path", "targets", "known", "place", "pixels", "maps"
BLOCKS_AHEAD = 2
PAUSE_S = 0.02


class Unhurried(ExecutionCallback):
    """Ray Data's loop turns without a pause while the batches that are ahead wait for a training step: half a core (Ray 2.60)."""

    def on_execution_step(self, executor: StreamingExecutor) -> None:
        time.sleep(PAUSE_S)


class Prepare:
    """Rows → pixels uint8 [N, H, W, 3], targets and known float32 [N, C], and maps float32 [N, C, h, w] where the rows have some.

    An image that cannot be read is grey, and nothing of it is known.
    """

    def __init__(self, size: tuple[int, int], told: Augment, seed: tuple[int, int]) -> None:
        """`seed`: the job's, and the epoch."""
        self.size, self.told, self.seed = size, told, seed

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        with ThreadPoolExecutor(2) as threads:
            augmented = list(threads.map(self._prepare, batch[PATH], batch[PLACE]))
        known = np.stack(list(batch[KNOWN])).astype(np.float32)
        for row, one in enumerate(augmented):
            if one is None:
                known[row] = 0.0
        width, height = self.size
        blank = np.full((height, width, 3), 128, np.uint8)
        maps = {}
        if MAPS in batch:
            mirrored = np.array([one is not None and one.is_mirrored for one in augmented])[:, None, None, None]
            maps = {MAPS: np.where(mirrored, batch[MAPS][..., ::-1], batch[MAPS]).astype(np.float32) / 255}
        return {
            **maps,
            PIXELS: np.stack([blank if one is None else one.pixels for one in augmented]),
            TARGETS: np.stack(list(batch[TARGETS])).astype(np.float32),
            KNOWN: known,
        }

    def _prepare(self, path: str, place: int) -> Augmented | None:
        random = np.random.default_rng((*self.seed, int(place)))
        try:
            return augment_image(decode(Path(path).read_bytes()).image, self.size, self.told, random)
        except (OSError, ImageError):
            return None


def epoch_order(targets: np.ndarray, job: FinetuneJob, epoch: int) -> np.ndarray:
    """Row numbers of one epoch, int64 [N]: a permutation, or with `balance` a draw in which rare classes come more often."""
    random = np.random.default_rng((job.seed, epoch))
    count = len(targets)
    if job.balance == 0:
        return random.permutation(count)
    positives = np.maximum((targets > 0.5).sum(axis=0), 1)
    rarity = np.where(targets > 0.5, positives.max() / positives, 1.0).max(axis=1) ** job.balance
    return random.choice(count, count, p=rarity / rarity.sum())


def epoch_batches(
    data: Dataset, job: FinetuneJob, preprocess: Preprocess, epoch: int, skip: int, processes: Processes
) -> Iterator[dict[str, np.ndarray]]:
    """This process's share of the batches of one epoch without its first `skip`; what is left over at the epoch's end is dropped (not
    where it is all there is).
    """
    order = epoch_order(data.targets, job, epoch)
    size = min(job.batch_size, len(order))
    places = np.arange(skip * size, len(order) // size * size)
    if not len(places):
        return
    places = places.reshape(-1, size)[:, list(processes.share(size))].ravel()
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
    own = len(processes.share(size))
    parts = [table.slice(start, own) for start in range(0, len(rows), own)]
    prepare = Prepare(preprocess.input_size, job.augment, (job.seed, epoch))
    prepared = ray.data.from_arrow(parts).map_batches(prepare, batch_size=None, num_cpus=1)
    prepared.context.execution_options.preserve_order = True
    prepared.context.custom_execution_callback_classes = [Unhurried]
    yield from prepared.iter_batches(batch_size=own, prefetch_batches=BLOCKS_AHEAD, drop_last=True)
