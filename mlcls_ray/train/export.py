"""The export of the best epoch: an inference folder with a threshold, and its model card."""

from __future__ import annotations

import shutil

import paddle

from mlcls_ray.labels.calibration import Target, best_threshold
from mlcls_ray.models.cache import TRAINED
from mlcls_ray.models.convert.paddle import export_network, write_config
from mlcls_ray.storage.whole import written_whole
from mlcls_ray.train import checkpoints
from mlcls_ray.train.dev_scores import score_dev
from mlcls_ray.train.distributed import ProcessGroup
from mlcls_ray.train.loop import Trainer
from mlcls_ray.train.model_card import write_model_card
from mlcls_ray.train.networks import build, with_sigmoid


def export_best(trainer: Trainer) -> None:
    """Export the averaged weights of the best epoch, in a form that `mlcls label --model` and PaddleX open."""
    setup = trainer.setup
    weights = checkpoints.read_arrays(trainer.folder / checkpoints.BEST, checkpoints.AVERAGED)
    scores = score_dev(setup, weights, trainer.prefix, ProcessGroup())  # alone: the other processes have ended
    threshold = best_threshold(scores.ravel(), setup.dev.targets.ravel() > 0.5, Target("f1"))
    network = build(setup.spec, len(setup.classes), head=setup.job.head)
    network.set_state_dict({name: paddle.to_tensor(value) for name, value in weights.items()})
    folder = setup.job.out / TRAINED
    name = setup.job.name or setup.job.out.name
    with written_whole(folder) as whole:
        export_network(with_sigmoid(network), setup.preprocess.input_size[0], whole)
        write_config(whole, setup.spec.name, setup.preprocess, setup.classes, round(threshold, 4), name)
        shutil.rmtree(folder, ignore_errors=True)  # of an earlier, shorter training
    write_model_card(folder.parent, setup, scores, threshold, trainer.state)
