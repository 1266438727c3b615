"""The training loop: epochs, steps and checkpoints."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable

import numpy as np
import paddle

from mlcls_ray.engines.failures import is_out_of_memory
from mlcls_ray.errors import RunError, UsageError
from mlcls_ray.labels.metrics import mean_average_precision
from mlcls_ray.train import checkpoints
from mlcls_ray.train.batches import KNOWN, MAPS, PIXELS, TARGETS, epoch_batches
from mlcls_ray.train.dev_scores import score_dev
from mlcls_ray.train.distributed import ProcessGroup
from mlcls_ray.train.freezing import freeze
from mlcls_ray.train.frozen_backbone import forward, forward_with_maps, make_frozen_prefix
from mlcls_ray.train.losses import LossFunction, local_loss, training_loss
from mlcls_ray.train.metrics_log import draw_curves, log_metrics, progress_bar, say_epoch
from mlcls_ray.train.optimizer import AveragedWeights, learning_rate_at, make_optimizer
from mlcls_ray.train.prepare import Setup

STOP = "stop"
"""A file beside the checkpoints: training saves and ends when it appears. This is how Ctrl-C reaches all processes."""
SAVE_INTERVAL_S = 120.0
"""Seconds between checkpoints within an epoch: the most that a killed training loses."""


class Trainer:
    """Trains a network in one process of a group, from the newest checkpoint on. The first process logs and saves."""

    def __init__(
        self,
        setup: Setup,
        group: ProcessGroup,
        loss_function: LossFunction = training_loss,
        save_interval_s: float = SAVE_INTERVAL_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Restore the newest checkpoint, if there is one.

        Raises:
            UsageError: the checkpoint is of other classes.
            RunError: the checkpoint is incomplete, or of another network.
        """
        self.setup, self.job, self.group = setup, setup.job, group
        self.loss_function, self.save_interval_s, self.clock = loss_function, save_interval_s, clock
        self.folder = self.job.out / checkpoints.FOLDER
        self.network = setup.network
        self.optimizer = make_optimizer(self.network, self.job)
        self.averaged = AveragedWeights(self.network, self.job.ema_decay)
        self.state = self._restore()
        self.prefix = make_frozen_prefix(self.network, self.job.freeze_fraction, self.job.device, setup.preprocess)
        self.chunks = self.job.grad_accumulation_steps
        self.steps_per_epoch = max(1, len(setup.train.paths) // self.job.batch_size)
        self.steps = self.job.epochs * self.steps_per_epoch
        self.saved_at = self.clock()
        self.loss: float | None = None
        """The mean loss of the epoch."""

    def _restore(self) -> checkpoints.State:
        newest = checkpoints.newest(self.folder)
        if newest is None:
            return checkpoints.State(classes=self.setup.classes)
        if checkpoints.read_state(newest).classes != self.setup.classes:
            raise UsageError(f"'{self.job.out}' was trained for other classes: give another --out")
        state = checkpoints.restore(newest, self.network, self.averaged, self.optimizer)
        if self.group.is_first and state.step:
            print(f"resumes at step {state.step} (epoch {state.epoch + 1})", file=sys.stderr)
        return state

    def train(self) -> bool:
        """Train to the last epoch, or until dev mAP stops improving. Return False if it was asked to stop before.

        Raises:
            RunError: the loss is not finite, or a checkpoint cannot be written.
        """
        self.group.barrier()  # no process saves before all have looked for checkpoints
        with progress_bar(self.steps, self.state.step) as show_step:
            while self.state.epoch < self.job.epochs:
                if not self._train_epoch(show_step):
                    return False
                self._end_epoch()
                patience = self.job.early_stopping_patience
                if patience and self.state.epoch - 1 - self.state.best_epoch >= patience:
                    break
        return True

    def _train_epoch(self, show_step: Callable[[float], None]) -> bool:
        """Train the rest of the current epoch. Return False if it was asked to stop."""
        job, state = self.job, self.state
        freeze(self.network, state.epoch < job.head_only_epochs, job)
        losses: list[float] = []
        self.saved_at = self.clock()
        for batch in epoch_batches(self.setup.train, job, self.setup.preprocess, state.epoch, state.done, self.group):
            loss = self._step(batch)
            losses.append(loss)
            show_step(loss)
            if self._save_or_stop():
                return False
        self.loss = float(np.mean(losses)) if losses else None
        if self.group.is_first:
            log_metrics(
                job.out,
                {
                    "step": self.state.step,
                    "epoch": self.state.epoch + 1,
                    "rate": learning_rate_at(self.state.step, self.steps, job),
                    "loss": self.loss,
                },
            )
        return True

    def _step(self, batch: dict[str, np.ndarray]) -> float:
        """Train on this process's share of a batch. Return the loss of the whole batch."""
        step = self.state.step
        self.optimizer.set_lr(learning_rate_at(step, self.steps, self.job))
        paddle.seed(self.job.seed * 1_000_003 + step)  # dropout is the same after a resume
        (loss,) = self.group.all_reduce_scalars(self._backward(batch))
        self.group.all_reduce_gradients(self.network)
        if not math.isfinite(loss):
            raise RunError(
                f"the loss is {loss} at step {step + 1}; the checkpoint before it is kept. A lower learning_rate "
                f"(now {self.job.learning_rate:g}) usually helps"
            )
        self.optimizer.step()
        self.optimizer.clear_grad()
        self.averaged.update(self.network, step)
        self.state = self.state.model_copy(update={"step": step + 1, "done": self.state.done + 1})
        return loss

    def _backward(self, batch: dict[str, np.ndarray]) -> float:
        """Compute gradients in `self.chunks` parts of the batch, in twice as many if memory is short. Return this process's loss."""
        size = len(batch[PIXELS])
        batch_rows = min(self.job.batch_size, len(self.setup.train.paths))
        while True:
            try:
                total = 0.0
                for rows in np.array_split(np.arange(size), min(self.chunks, size)):
                    chunk = {name: values[rows] for name, values in batch.items()}
                    loss = self._loss(chunk) * (len(rows) / batch_rows)
                    loss.backward()
                    total += float(loss)
                return total
            except Exception as error:
                self.optimizer.clear_grad()
                if not is_out_of_memory(error) or self.chunks >= size:
                    raise
                self.chunks *= 2
                print(f"out of memory: batches are computed in {self.chunks} parts from now on", file=sys.stderr)

    def _loss(self, batch: dict[str, np.ndarray]) -> paddle.Tensor:
        job, distill = self.job, self.job.distill
        known = paddle.to_tensor(batch[KNOWN])
        inputs = (self.network, self.prefix, batch[PIXELS], self.setup.preprocess)
        with paddle.amp.auto_cast(enable=job.precision == "amp"):
            logits, maps = forward_with_maps(*inputs) if distill.local_weight else (forward(*inputs), None)
        targets = paddle.to_tensor(batch[TARGETS])
        loss = self.loss_function(logits.astype("float32"), targets, known, job.loss, distill.logit_clip)
        if maps is None:
            return loss
        map_targets = paddle.to_tensor(batch[MAPS])
        return loss + distill.local_weight * local_loss(
            maps.astype("float32"), map_targets, known, job.loss, distill.logit_clip
        )

    def _save_or_stop(self) -> bool:
        """Save if it is time or training is asked to stop. All processes agree on the answer: whether to stop."""
        is_first = self.group.is_first
        is_asked = is_first and (self.folder / STOP).exists()
        is_due = is_first and self.clock() - self.saved_at > self.save_interval_s
        stop, save = (total > 0 for total in self.group.all_reduce_scalars(is_asked, is_due))
        if is_first and (stop or save):
            self._save()
            self.saved_at = self.clock()
        return stop

    def _end_epoch(self) -> None:
        """Evaluate the averaged weights, log, keep the best, save."""
        weights = self.group.broadcast(self.averaged.values)
        scores = score_dev(self.setup, weights, self.prefix, self.group)
        dev_map = mean_average_precision(scores, self.setup.dev.targets)
        is_best = dev_map > self.state.best
        best = {"best": dev_map, "best_epoch": self.state.epoch} if is_best else {}
        self.state = self.state.model_copy(update={"epoch": self.state.epoch + 1, "done": 0, **best})
        if self.group.is_first:
            log_metrics(self.job.out, {"step": self.state.step, "epoch": self.state.epoch, "dev_map": dev_map})
            say_epoch(self.state.epoch, self.job.epochs, self.loss, dev_map, is_best)
            if is_best:
                self._save(checkpoints.BEST)
            self._save()
            draw_curves(self.job.out)

    def _save(self, name: str | None = None) -> None:
        name = name or f"{checkpoints.PREFIX}{self.state.step}"
        checkpoints.save(self.folder, name, self.network, self.averaged, self.optimizer, self.state)
        checkpoints.prune(self.folder, self.job.keep_last)
