"""Population stability index: its values, and how often chance alone exceeds what it is said to."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mlcls_ray.labels.stability import psi, psi_noise, share_noise


def test_psi() -> None:
    assert psi([5, 5], [50, 50]) == pytest.approx(0)
    assert psi([90, 10], [10, 90]) > 0.25
    assert psi([10, 0], [0, 10]) < float("inf")
    assert psi([10**6, 10**6], [10**6, 3 * 10**6]) == pytest.approx(0.25 * math.log(3), abs=1e-4), "by hand"


@pytest.mark.parametrize(("before", "now"), [(100, 100), (700, 100), (7000, 1000)])
def test_chance_alone_seldom_exceeds_the_noise(before: int, now: int) -> None:
    random = np.random.default_rng(0)
    shares = random.dirichlet(np.full(10, 0.5), size=400)
    exceeded = 0
    for one in shares:
        pair = random.multinomial(before, one).tolist(), random.multinomial(now, one).tolist()
        exceeded += psi(*pair) > psi_noise(*pair)
    assert exceeded / len(shares) <= 0.03
    proportions = random.random(400)
    parts = random.binomial([[before], [now]], proportions)
    differences = np.abs(parts[0] / before - parts[1] / now)
    noise = [share_noise((int(old), before), (int(new), now)) for old, new in parts.T]
    assert (differences > noise).mean() < 0.02


def test_a_small_night_against_a_long_history_is_no_drift() -> None:
    """A label that no image has, and one that a few have: most bins are empty on both sides, or on the small one."""
    assert psi([24_000, *[0] * 10], [100, *[0] * 10]) == pytest.approx(0)
    assert psi([23_960, *[4] * 10], [100, *[0] * 10]) < 0.02
    assert psi([24_000, *[0] * 10], [99, 1, *[0] * 9]) < 0.1
    assert psi([24_000, *[0] * 10], [50, 50, *[0] * 9]) > 1


def test_bins_that_are_empty_in_both_do_not_count() -> None:
    assert psi_noise([5, 5, 0, 0], [4, 6, 0, 0]) == psi_noise([5, 5], [4, 6])
    assert psi_noise([10], [10]) == 0
    assert share_noise((0, 10), (0, 20)) == 0
