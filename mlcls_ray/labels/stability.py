"""The shift of a distribution from an earlier one: the population stability index, and the part of it that is chance."""

from __future__ import annotations

import math
from collections.abc import Sequence

SMOOTHING = 0.5
"""Added to each count of the larger histogram, so that an empty bin does not make PSI infinite; to the other one its share of that, so
that a bin that is empty in both adds nothing, whatever their sizes."""
DEVIATIONS = 3.0
"""Standard deviations above its mean that PSI may reach by chance."""


def psi(before: Sequence[int], now: Sequence[int]) -> float:
    """Return the population stability index of two histograms over the same bins: Σ (q − p) ln(q / p).

    Source: N. Siddiqi, Credit Risk Scorecards (2006), with its rule of thumb: below 0.1 nothing has moved, above 0.25 much has. The
    shares p and q are of counts to which `SMOOTHING` was added.
    """
    largest = max(sum(before), sum(now), 1)
    shares = []
    for counts in (before, now):
        added = SMOOTHING * max(sum(counts), 1) / largest
        shares.append([(count + added) / (sum(counts) + added * len(counts)) for count in counts])
    return math.fsum((q - p) * math.log(q / p) for p, q in zip(*shares, strict=True))


def psi_noise(before: Sequence[int], now: Sequence[int]) -> float:
    """Return the PSI that chance alone seldom exceeds, where both histograms (neither is empty) are samples of one distribution.

    PSI is then about (1/n + 1/m) times a chi-squared variable with B − 1 degrees of freedom, for n and m counts in B bins (B. Yurdakul,
    Statistical Properties of Population Stability Index, 2018). This is its mean and three standard deviations; bins that are empty in
    both do not count.
    """
    freedom = sum(1 for counts in zip(before, now, strict=True) if any(counts)) - 1
    return (freedom + DEVIATIONS * math.sqrt(2 * freedom)) * (1 / sum(before) + 1 / sum(now))


def share_noise(before: tuple[int, int], now: tuple[int, int]) -> float:
    """Return the difference of two shares, each given as (part, whole > 0), that chance alone seldom exceeds: three standard errors.

    The standard error is that of the two-proportion z-test, with the pooled share.
    """
    pooled = (before[0] + now[0]) / (before[1] + now[1])
    return DEVIATIONS * math.sqrt(pooled * (1 - pooled) * (1 / before[1] + 1 / now[1]))
