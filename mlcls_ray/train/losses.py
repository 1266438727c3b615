"""Losses for multi-label classification: most decisions are easy negatives, and some targets are unknown."""

from __future__ import annotations

from collections.abc import Callable

import paddle
from paddle import nn

from mlcls_ray.train.config import Loss

LossFunction = Callable[[paddle.Tensor, paddle.Tensor, paddle.Tensor, Loss, float | None], paddle.Tensor]
"""The signature of `training_loss`."""


def training_loss(
    logits: paddle.Tensor, targets: paddle.Tensor, known: paddle.Tensor, loss: Loss, logit_clip: float | None = None
) -> paddle.Tensor:
    """Compute the asymmetric loss, or with `logit_clip` the squared distance of logits. Arguments as for these two functions."""
    if logit_clip is None:
        return asymmetric_loss(logits, targets, known, loss)
    return squared_logit_loss(logits, targets, known, logit_clip)


def local_loss(
    maps: paddle.Tensor, targets: paddle.Tensor, known: paddle.Tensor, loss: Loss, logit_clip: float | None = None
) -> paddle.Tensor:
    """Compute the mean of `training_loss` over the positions of score maps, each taken as an image.

    Args:
        maps: logits float32 [N, C, h, w].
        targets: float32 [N, C, h, w] in 0..1.
        known: float32 [N, C]; a class that is unknown for an image is unknown at each of its positions.
        loss: parameters of the asymmetric loss.
        logit_clip: as in `Distill`.
    """
    classes = maps.shape[1]
    known_maps = known.unsqueeze([2, 3]).expand_as(maps)
    flat_logits, flat_targets, flat_known = (
        tensor.transpose([0, 2, 3, 1]).reshape([-1, classes]) for tensor in (maps, targets, known_maps)
    )
    return training_loss(flat_logits, flat_targets, flat_known, loss, logit_clip)


def squared_logit_loss(
    logits: paddle.Tensor, targets: paddle.Tensor, known: paddle.Tensor, logit_clip: float
) -> paddle.Tensor:
    """Compute the squared distance between logits and the logits of the targets: the mean over images of the sum over known classes.

    See Ba and Caruana, "Do Deep Nets Really Need to be Deep?", arXiv 1312.6184. A teacher's low scores teach as much as its high ones;
    cross-entropy hardly distinguishes 0.02 from 0.1.

    Args:
        logits: float32 [N, C].
        targets: float32 [N, C] in 0..1, clipped to [logit_clip, 1 - logit_clip].
        known: float32 [N, C], 1 where the target is known, else 0.
        logit_clip: above 0, below 0.5.
    """
    target_logits = paddle.logit(paddle.clip(targets, logit_clip, 1 - logit_clip))
    return (((logits - target_logits) ** 2) * known).sum() / logits.shape[0]


def asymmetric_loss(logits: paddle.Tensor, targets: paddle.Tensor, known: paddle.Tensor, loss: Loss) -> paddle.Tensor:
    """Compute the asymmetric loss (Ridnik et al., arXiv 2009.14119): the mean over images of the sum over known classes.

    Soft targets weight its two sides: a teacher's 0.7 counts 0.7 as a positive and 0.3 as a negative.

    Args:
        logits: float32 [N, C].
        targets: float32 [N, C] in 0..1.
        known: float32 [N, C], 1 where the target is known, else 0.
        loss: its exponents and clip.
    """
    scores = nn.functional.sigmoid(logits)
    shifted = paddle.clip(scores - loss.clip, min=0.0)  # a negative below the clip adds nothing
    positive = targets * (1 - scores) ** loss.gamma_positive * nn.functional.log_sigmoid(logits)
    exact = nn.functional.log_sigmoid(-logits)  # without a clip: the general form loses precision near zero
    negative_log = paddle.log(paddle.clip(1 - shifted, min=1e-8)) if loss.clip > 0 else exact
    negative = (
        (1 - targets) * shifted**loss.gamma_negative * negative_log
        if loss.gamma_negative
        else (1 - targets) * negative_log
    )
    return -((positive + negative) * known).sum() / logits.shape[0]
