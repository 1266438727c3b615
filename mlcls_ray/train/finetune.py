"""Fine-tuning: labeled images → a model folder. In one process or several; a stopped training resumes at the exact step."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from mlcls_ray.errors import RunInterruptedError
from mlcls_ray.job.cluster import connect
from mlcls_ray.models.cache import TRAINED
from mlcls_ray.models.networks.spec import NetworkSpec
from mlcls_ray.models.zoo import STARTER
from mlcls_ray.terminal import SILENT, Steps, on_first_sigint
from mlcls_ray.train import checkpoints
from mlcls_ray.train.config import FinetuneJob
from mlcls_ray.train.distributed import ProcessGroup, run_processes
from mlcls_ray.train.export import export_best
from mlcls_ray.train.head_start import write_start
from mlcls_ray.train.loop import SAVE_INTERVAL_S, STOP, Trainer
from mlcls_ray.train.losses import LossFunction, training_loss
from mlcls_ray.train.metrics_log import following_epochs
from mlcls_ray.train.prepare import Setup, prepare
from mlcls_ray.train.sized_job import say_size


class FinetuneResult(NamedTuple):
    """The exported model's folder, the best dev mAP (0..1) with its epoch (from 1; 0: before training), and the number of steps done.

    `taken_over` and `fitted` are dev mAP before training: of the initial weights' own head, and of the head fitted to frozen features.
    """

    model: Path
    mean_average_precision: float
    epoch: int
    steps: int
    taken_over: float | None = None
    fitted: float | None = None


def finetune(
    job: FinetuneJob,
    spec: NetworkSpec | None = None,
    loss_function: LossFunction = training_loss,
    save_interval_s: float = SAVE_INTERVAL_S,
    steps: Steps = SILENT,
) -> FinetuneResult:
    """Train, evaluate after each epoch, and export the best epoch.

    Args:
        job: the options.
        spec: a network of your own, instead of the one that the job names.
        loss_function: a loss of your own, with the signature of `training_loss`.
        save_interval_s: seconds between checkpoints within an epoch.
        steps: told what is done before and after the epochs.

    Raises:
        UsageError: data, initial weights or device are wrong; nothing has been trained.
        RunError: the loss is not finite, or a checkpoint cannot be written; older checkpoints are kept.
        RunInterruptedError: Ctrl-C; a checkpoint has been written.
    """
    job = _with_absolute_paths(job)
    stop_file = job.out / checkpoints.FOLDER / STOP
    stop_file.unlink(missing_ok=True)

    def request_stop() -> None:
        stop_file.parent.mkdir(parents=True, exist_ok=True)
        stop_file.touch()

    def train_and_export(setup: Setup, group: ProcessGroup, steps: Steps) -> None:
        trainer = Trainer(setup, group, loss_function, save_interval_s)
        steps.pause()  # a bar follows
        if trainer.train() and group.is_first:
            steps.say("exporting the best epoch")
            export_best(trainer)

    setup = prepare(job, spec)  # errors are found before anything starts
    epochs = setup.job.epochs
    say_size(job, setup.job, len(setup.train.paths))
    if checkpoints.newest(job.out / checkpoints.FOLDER) is None:
        write_start(setup, job.out / checkpoints.FOLDER, steps)
    job.out.mkdir(parents=True, exist_ok=True)
    steps.say("starting Ray")
    connect(None, device=job.device if job.workers > 1 else None)  # one worker is this process
    steps.say("preparing the first epoch")
    with on_first_sigint(request_stop, "this step is finished and saved"):
        if job.workers == 1:
            train_and_export(setup, ProcessGroup(), steps)
        else:
            del setup  # each process makes its own
            started = checkpoints.newest(job.out / checkpoints.FOLDER)
            best = checkpoints.read_state(started).best if started else 0.0
            steps.say(f"training in {job.workers} processes")
            with following_epochs(job.out, epochs, best):
                run_processes(
                    lambda group: train_and_export(prepare(job, spec), group, SILENT), job.workers, job.device
                )
    newest = checkpoints.newest(job.out / checkpoints.FOLDER)
    state = checkpoints.read_state(newest) if newest else checkpoints.State()
    if stop_file.exists():
        stop_file.unlink()
        if state.epoch < epochs:
            raise RunInterruptedError(f"interrupted at step {state.step}, which is saved; the same command resumes")
    model = job.out / TRAINED
    return FinetuneResult(model, state.best, state.best_epoch + 1, state.step, state.taken_over, state.fitted)


def _with_absolute_paths(job: FinetuneJob) -> FinetuneJob:
    """Make paths absolute: processes on other workers have another working directory."""
    init_from = job.init_from
    if init_from not in (None, STARTER):
        init_from = str(Path(str(init_from)).absolute())
    return job.model_copy(update={"data": job.data.absolute(), "out": job.out.absolute(), "init_from": init_from})
