"""Losses for many labels: most decisions are easy negatives, and some are not known at all."""

from __future__ import annotations

import paddle
from paddle import nn

from mlcls_ray.training.config import Loss


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
