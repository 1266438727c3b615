"""The head before the first epoch: classes taken over by name, and the fit in closed form."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from mlcls_ray.models.heads import HEADS
from mlcls_ray.train.closed_form import Readout, Ridge, fit_readout
from mlcls_ray.train.head_classes import take_over_head
from mlcls_ray.train.head_start import apply_readout, readout_width

CHANNELS = 6
OLD, NEW = ("cat", "dog", "car", "bus"), ("car", "tree", "cat")
RANDOM = np.random.default_rng(0)
MAPS = paddle.to_tensor(RANDOM.normal(size=(5, CHANNELS, 3, 3)).astype(np.float32))


def make_head(name: str, classes: int, seed: int) -> paddle.nn.Layer:
    paddle.seed(seed)
    head = HEADS[name](CHANNELS, classes)
    head.eval()
    return head


def logits(head: paddle.nn.Layer) -> np.ndarray:
    with paddle.no_grad():
        return np.asarray(head(MAPS).numpy())


def values_of(head: paddle.nn.Layer) -> dict[str, np.ndarray]:
    return {f"head.{name}": tensor.numpy() for name, tensor in head.state_dict().items()}


@pytest.mark.parametrize("name", HEADS)
def test_classes_with_the_same_name_keep_their_logits(name: str) -> None:
    old, new = make_head(name, len(OLD), 1), make_head(name, len(NEW), 2)
    taken = take_over_head(new, "head", values_of(old), OLD, NEW)
    assert taken is not None
    assert taken.known == {"car", "cat"}
    new.set_state_dict({key.removeprefix("head."): paddle.to_tensor(value) for key, value in taken.values.items()})
    np.testing.assert_allclose(logits(new)[:, [0, 2]], logits(old)[:, [2, 0]], atol=1e-6)


def test_a_head_of_unknown_classes_is_taken_over_if_there_are_as_many() -> None:
    old = make_head("pooled", 3, 1)
    taken = take_over_head(make_head("pooled", 3, 2), "head", values_of(old), None, NEW)
    assert taken is not None
    assert taken.known == set(NEW)
    fewer = take_over_head(make_head("pooled", 2, 2), "head", values_of(old), None, NEW[:2])
    assert fewer is not None
    assert not fewer.known


@pytest.mark.parametrize(
    ("old", "new"), [("pooled", "ml_decoder"), ("pooled_local", "pooled"), ("pooled", "pooled_local")]
)
def test_another_head_is_not_taken_over(old: str, new: str) -> None:
    assert take_over_head(make_head(new, 3, 2), "head", values_of(make_head(old, 3, 1)), NEW, NEW) is None


@pytest.mark.parametrize("name", HEADS)
def test_a_readout_becomes_parameters_of_the_head(name: str) -> None:
    head = make_head(name, 3, 1)
    before = logits(head)
    with paddle.no_grad():
        inputs = head.readout_input(MAPS).numpy()
    assert readout_width(head) == inputs[0].size
    readout = Readout(
        keep=np.array([0.5, 0.0, 2.0], np.float32),
        weight=RANDOM.normal(0, 0.1, (inputs.shape[-1], 3)).astype(np.float32),
        bias=np.array([1.0, -1.0, 0.0], np.float32),
    )
    apply_readout(head, readout)
    np.testing.assert_allclose(logits(head), readout.logits(inputs, before), atol=1e-4)


def test_leave_one_out_is_exact() -> None:
    """Each prediction is that of a ridge regression, with an intercept, on all other images."""
    inputs, targets = RANDOM.normal(size=(12, 5)), RANDOM.random((12, 2))
    ridge = Ridge.of(inputs, targets)
    penalty = ridge.penalty(0.3)
    for image, predicted in enumerate(ridge.leave_one_out(0.3)):
        rest = np.delete(np.arange(12), image)
        x, y = ridge.scaled[rest], targets[rest]
        centred = x - x.mean(axis=0)
        weight = np.linalg.solve(centred.T @ centred + penalty * np.eye(5), centred.T @ (y - y.mean(axis=0)))
        np.testing.assert_allclose(predicted, y.mean(axis=0) + (ridge.scaled[image] - x.mean(axis=0)) @ weight)
    weight, bias = ridge.solve(0.3)
    centred = ridge.scaled.T @ ridge.scaled + penalty * np.eye(5)
    expected = np.linalg.solve(centred, ridge.scaled.T @ (targets - targets.mean(axis=0)))
    np.testing.assert_allclose(inputs @ weight + bias, targets.mean(axis=0) + ridge.scaled @ expected)


def problem(images: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Make features, targets of two classes that they tell with noise, and logits that know the first class a little."""
    random = np.random.default_rng(seed)
    inputs = random.normal(size=(images, 20)).astype(np.float32)
    targets = (inputs[:, :2] + random.normal(0, 0.5, (images, 2)) > 0).astype(np.float32)
    return inputs, targets, (targets * 2 - 1 + random.normal(0, 2, targets.shape)).astype(np.float32)


def accuracy(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    return np.asarray(((logits > 0) == (targets > 0.5)).mean(axis=0))


def test_the_fit_uses_features_and_the_logits_before() -> None:
    inputs, targets, before = problem(80, 1)
    readout = fit_readout(inputs, before, targets, np.array([True, False]))
    assert readout.keep[0] > 0 == readout.keep[1], "a class that is new has no logits before"
    inputs, targets, before = problem(2000, 2)
    assert (accuracy(readout.logits(inputs, before), targets) > 0.7).all()
    assert accuracy(readout.logits(inputs, before), targets)[0] > accuracy(before, targets)[0]


def test_useless_features_leave_the_logits_as_they_rank() -> None:
    inputs, targets, before = problem(40, 3)
    noise = np.random.default_rng(4).normal(size=inputs.shape).astype(np.float32)
    readout = fit_readout(noise, before, targets, np.array([True, True]))
    _, targets, before = problem(2000, 5)
    noise = np.random.default_rng(6).normal(size=(2000, 20)).astype(np.float32)
    assert (accuracy(readout.logits(noise, before), targets) > accuracy(before, targets) - 0.05).all()


def test_unknown_targets_and_classes_without_an_image_do_not_harm() -> None:
    inputs, targets, before = problem(60, 7)
    targets = np.concatenate([targets, np.zeros((60, 1), np.float32), np.full((60, 1), np.nan, np.float32)], axis=1)
    targets[::3, 0] = np.nan
    before = np.concatenate([before, before], axis=1)
    readout = fit_readout(inputs, before, targets, np.array([True, True, False, False]))
    scores = readout.logits(inputs, before)
    assert np.isfinite(scores).all()
    assert accuracy(scores[1::3, :2], targets[1::3, :2]).min() > 0.8
    assert (scores[:, 2] < 0).all(), "a class that is on no image"


def test_features_of_their_own_for_each_class() -> None:
    inputs, targets, before = problem(80, 8)
    shared = fit_readout(inputs, before, targets, np.array([True, True]))
    own = fit_readout(np.stack([inputs, inputs], axis=1), before, targets, np.array([True, True]))
    np.testing.assert_allclose(
        shared.logits(inputs, before), own.logits(np.stack([inputs, inputs], 1), before), atol=1e-3
    )
