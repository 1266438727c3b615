"""The classes of a head: taken over from another head by their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from paddle import nn


class TakenHead(NamedTuple):
    """The parameters of a head for new classes, by their names in the network, and the classes that the old head has been trained for."""

    values: dict[str, np.ndarray]
    known: frozenset[str]


def take_over_head(
    head: nn.Layer,
    prefix: str,
    values: Mapping[str, np.ndarray],
    old_classes: Sequence[str] | None,
    classes: Sequence[str],
) -> TakenHead | None:
    """Take over a head: what all classes share, and the parts of the classes that both have. Other classes keep their values in `head`.

    Args:
        head: the new head.
        prefix: its name in the network.
        values: the old network's parameters.
        old_classes: the classes of the old head; None: not known, and taken to be `classes` if there are as many.
        classes: the classes of the new head.

    Returns:
        None: the old network has another head, or its head is of a kind that does not tell its classes apart and has other ones.
    """
    axes: Mapping[str, int] = getattr(head, "CLASS_AXES", {})
    state = {name: tensor.numpy() for name, tensor in head.state_dict().items()}
    old = {name: values[f"{prefix}.{name}"] for name in state if f"{prefix}.{name}" in values}
    if old.keys() != state.keys() or any(name.startswith(f"{prefix}.") for name in values.keys() - _named(old, prefix)):
        return None
    counts = {old[name].shape[axis] for name, axis in axes.items() if old[name].ndim == state[name].ndim}
    if old_classes is None and counts <= {len(classes)}:
        old_classes = classes
    places = {} if old_classes is None else {name: place for place, name in enumerate(old_classes)}
    pairs = [(place, places[name]) for place, name in enumerate(classes) if name in places]
    new_places, old_places = [new for new, _ in pairs], [old_place for _, old_place in pairs]
    taken = {}
    for name, value in state.items():
        other = old[name]
        axis = axes.get(name)
        if axis is None:
            if other.shape != value.shape:
                return None
            taken[f"{prefix}.{name}"] = other
            continue
        if other.ndim != value.ndim or np.delete(other.shape, axis).tolist() != np.delete(value.shape, axis).tolist():
            return None
        part = value.copy()
        np.moveaxis(part, axis, 0)[new_places] = np.moveaxis(other, axis, 0)[old_places]
        taken[f"{prefix}.{name}"] = part
    return TakenHead(taken, frozenset(classes[place] for place in new_places))


def _named(old: Mapping[str, np.ndarray], prefix: str) -> set[str]:
    return {f"{prefix}.{name}" for name in old}
