"""AdamW with a rate for each part of the network, a cosine with warm-up over it, and averaged weights."""

from __future__ import annotations

import math

import numpy as np
import paddle
from paddle import nn

from mlcls_ray.train.config import FinetuneJob

PARTS = 8
"""The backbone is cut into so many parts of equally many layers, front to back."""
HEADS = ("fc.", "head.")
"""How the names of the heads' parameters begin: of PaddleClas's networks, and of the starter's."""


def is_head(name: str) -> bool:
    return name.startswith(HEADS)


def parts_of(network: nn.Layer) -> dict[str, int]:
    """Which of the PARTS each parameter of the backbone belongs to, from the front; a layer's parameters stay together."""
    backbone = [name for name, _ in network.named_parameters() if not is_head(name)]
    layers = {layer: place for place, layer in enumerate(dict.fromkeys(name.rpartition(".")[0] for name in backbone))}
    return {name: layers[name.rpartition(".")[0]] * PARTS // len(layers) for name in backbone}


def make_optimizer(network: nn.Layer, job: FinetuneJob) -> paddle.optimizer.AdamW:
    """Biases and norms are not decayed. Rates are relative to the optimizer's own, which `rate_at` sets before each step."""
    trained = [(name, one) for name, one in network.named_parameters() if not one.stop_gradient]
    part_of = parts_of(network)
    groups = []
    for name, parameter in trained:
        factor = 1.0 if is_head(name) else job.backbone_rate * job.layer_decay ** (PARTS - 1 - part_of[name])
        groups.append(
            {
                "params": [parameter],
                "learning_rate": factor,
                "weight_decay": job.weight_decay if len(parameter.shape) > 1 else 0.0,
            }
        )
    return paddle.optimizer.AdamW(
        learning_rate=job.learning_rate, parameters=groups, grad_clip=nn.ClipGradByGlobalNorm(job.clip_norm)
    )


def rate_at(step: int, steps: int, job: FinetuneJob) -> float:
    """The head's rate at one of so many steps: linearly up, then down as a cosine to a hundredth."""
    rising = max(1, round(job.warmup * steps))
    if step < rising:
        return job.learning_rate * (step + 1) / rising
    done = (step - rising) / max(1, steps - rising)
    return job.learning_rate * (0.01 + 0.99 * (1 + math.cos(math.pi * min(done, 1.0))) / 2)


class AveragedWeights:
    """Exponential moving average of a network's state. Early steps count more, so that it does not remember the start for long."""

    def __init__(self, network: nn.Layer, decay: float) -> None:
        self.decay = decay
        self.values = {name: one.numpy().copy() for name, one in network.state_dict().items()}

    def update(self, network: nn.Layer, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, one in network.state_dict().items():
            value = one.numpy()
            if np.issubdtype(value.dtype, np.floating):
                self.values[name] = decay * self.values[name] + (1 - decay) * value
            else:
                self.values[name] = value.copy()
