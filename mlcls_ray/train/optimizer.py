"""AdamW with a learning rate for each section of the network, a cosine schedule with warm-up, and averaged weights."""

from __future__ import annotations

import math

import numpy as np
import paddle
from paddle import nn

from mlcls_ray.models.networks.spec import is_head
from mlcls_ray.train.freezing import SECTIONS, backbone_sections
from mlcls_ray.train.sized_job import SizedJob

FINAL_LR_SCALE = 0.01
"""Learning rate of the last step, as a share of the peak."""


def make_optimizer(network: nn.Layer, job: SizedJob) -> paddle.optimizer.AdamW:
    """Create AdamW without decay of biases and norms. Its rates are factors of the rate that `learning_rate_at` sets before each step."""
    trainable = [(name, parameter) for name, parameter in network.named_parameters() if not parameter.stop_gradient]
    section_of = backbone_sections(network)
    groups = []
    for name, parameter in trainable:
        scale = 1.0 if is_head(name) else job.backbone_lr_scale * job.layer_decay ** (SECTIONS - 1 - section_of[name])
        groups.append(
            {
                "params": [parameter],
                "learning_rate": scale,
                "weight_decay": job.weight_decay if len(parameter.shape) > 1 else 0.0,
            }
        )
    return paddle.optimizer.AdamW(
        learning_rate=job.learning_rate, parameters=groups, grad_clip=nn.ClipGradByGlobalNorm(job.grad_clip_norm)
    )


def learning_rate_at(step: int, steps: int, job: SizedJob) -> float:
    """Return the head's learning rate at a step: linear warm-up, then a cosine down to a hundredth of the peak."""
    warmup_steps = max(1, round(job.warmup_ratio * steps))
    if step < warmup_steps:
        return job.learning_rate * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    cosine = (1 + math.cos(math.pi * min(progress, 1.0))) / 2
    return job.learning_rate * (FINAL_LR_SCALE + (1 - FINAL_LR_SCALE) * cosine)


class AveragedWeights:
    """Exponential moving average of a network's state. Early steps have more weight, so that the initial values fade out quickly."""

    def __init__(self, network: nn.Layer, decay: float) -> None:
        self.decay = decay
        self.values = {name: tensor.numpy().copy() for name, tensor in network.state_dict().items()}

    def update(self, network: nn.Layer, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, tensor in network.state_dict().items():
            value = tensor.numpy()
            if np.issubdtype(value.dtype, np.floating):
                self.values[name] = decay * self.values[name] + (1 - decay) * value
            else:
                self.values[name] = value.copy()
