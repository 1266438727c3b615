"""Losses for many labels: most decisions are easy negatives, and some are not known at all."""

from __future__ import annotations

import paddle
from paddle import nn

from mlcls_ray.train.config import Loss


def training_loss(logits: paddle.Tensor, targets: paddle.Tensor, known: paddle.Tensor, loss: Loss) -> paddle.Tensor:
    """The loss that the job asks for; arguments as those of `asymmetric_loss`."""
    if loss.margin is None:
        return asymmetric_loss(logits, targets, known, loss)
    return squared_logit_loss(logits, targets, known, loss.margin)


def local_loss(maps: paddle.Tensor, targets: paddle.Tensor, known: paddle.Tensor, loss: Loss) -> paddle.Tensor:
    """`training_loss` of each position as if it were an image, their mean.

    Args:
        maps: logits float32 [N, C, h, w].
        targets: float32 [N, C, h, w] in 0..1.
        known: float32 [N, C]; what is not known of an image is known nowhere in it.
    """
    classes = maps.shape[1]
    everywhere = known.unsqueeze([2, 3]).expand_as(maps)
    logits, aims, looked_at = (
        one.transpose([0, 2, 3, 1]).reshape([-1, classes]) for one in (maps, targets, everywhere)
    )
    return training_loss(logits, aims, looked_at, loss)


def squared_logit_loss(
    logits: paddle.Tensor, targets: paddle.Tensor, known: paddle.Tensor, margin: float
) -> paddle.Tensor:
    """Squared distance from the targets' own logits, mean over the images of the sum over their known classes (Ba and Caruana, "Do Deep
    Nets Really Need to be Deep?", arXiv 1312.6184).

    What a teacher finds unlikely teaches as well as what it finds: cross-entropy hardly tells 0.02 from 0.1.

    Args:
        logits: float32 [N, C].
        targets: float32 [N, C] in 0..1; those nearer to 0 or 1 than `margin` count as so near.
        known: float32 [N, C], 1 where the target says something, 0 where nobody looked.
        margin: 0 < margin < 0.5.
    """
    wanted = paddle.logit(paddle.clip(targets, margin, 1 - margin))
    return (((logits - wanted) ** 2) * known).sum() / logits.shape[0]


def asymmetric_loss(logits: paddle.Tensor, targets: paddle.Tensor, known: paddle.Tensor, loss: Loss) -> paddle.Tensor:
    """Asymmetric loss (Ridnik et al., arXiv 2009.14119), mean over the images of the sum over their known classes.

    With soft targets the two sides are weighted by them, so that a teacher's 0.7 counts 0.7 as a positive and 0.3 as a negative.

    Args:
        logits: float32 [N, C].
        targets: float32 [N, C] in 0..1.
        known: float32 [N, C], 1 where the target says something, 0 where nobody looked.
    """
    scores = nn.functional.sigmoid(logits)
    shifted = paddle.clip(scores - loss.clip, min=0.0)  # of a negative: below the margin it is no loss
    positive = targets * (1 - scores) ** loss.gamma_positive * nn.functional.log_sigmoid(logits)
    exact = nn.functional.log_sigmoid(-logits)  # where nothing is shifted; the other way loses what is near zero
    negative_log = paddle.log(paddle.clip(1 - shifted, min=1e-8)) if loss.clip > 0 else exact
    negative = (
        (1 - targets) * shifted**loss.gamma_negative * negative_log
        if loss.gamma_negative
        else (1 - targets) * negative_log
    )
    return -((positive + negative) * known).sum() / logits.shape[0]
