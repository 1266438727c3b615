"""Exported models of networks whose structure has changed since: told apart by their program.

Such a model labels as it always did. What an earlier version made of PaddleClas's weights differs from what PaddleClas makes of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from mlcls_ray.errors import UsageError
from mlcls_ray.models.artifact import Model

LCNET_KEPT = 0.8
"""PaddleClas's PP-LCNet multiplies the features by this in inference: its dropout of 0.2 has the mode `downscale_in_infer`."""
LCNET_PRODUCT = re.compile(r'down(?:scale|grade)_in_infer|"D"\s*:\s*0\.80000\d*\s*\}')
LCNET_READERS = ("fc.input_proj.weight", "fc.fc.weight", "fc.local.weight")
"""The parameters that take the features, in each of the heads."""


class Outdated(NamedTuple):
    """A structure that earlier versions of this package exported for a network."""

    difference: str
    """The difference to PaddleClas's, in words."""
    is_program: Callable[[str], bool]
    """Tells by the text of a program whether it is of this structure."""
    adapt: Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]] | None
    """Makes weights for today's structure that give the same scores; None: there are none."""


def _divided(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: value / LCNET_KEPT if name in LCNET_READERS else value for name, value in weights.items()}


OUTDATED: Mapping[str, Outdated] = {
    "PP-LCNet_x1_0_ML": Outdated(
        "it lacks the factor 0.8 before the head", lambda program: not LCNET_PRODUCT.search(program), _divided
    ),
    "CLIP_vit_base_patch16_448_ML": Outdated(
        "it has QuickGELU instead of GELU, and a bias in its first layer",
        lambda program: '"1.gelu"' not in program,
        None,
    ),
}


def find_outdated(model: Model) -> Outdated | None:
    """Return the old structure that a model has; None if its network is as it is built today, or unknown."""
    known = OUTDATED.get(model.network)
    if known is None or model.program.suffix != ".json":  # this package has never written another format
        return None
    return known if known.is_program(model.program.read_text(encoding="utf-8")) else None


def outdated_note(model: Model) -> str | None:
    """Say how a model differs from PaddleClas's network of the same name; None if it does not."""
    known = find_outdated(model)
    if known is None:
        return None
    return (
        f"model '{model.folder}' was exported by an earlier version, whose {model.network} is not PaddleClas's: {known.difference}. "
        "If the weights are PaddleClas's, export them again (`mlcls export WEIGHTS.pdparams`); if you trained them with that version, "
        "the model is right as it is"
    )


def refuse_unadaptable(model: Model) -> None:
    """Refuse a model whose old structure has no weights for today's network.

    Raises:
        UsageError: it is of one.
    """
    known = find_outdated(model)
    if known is not None and known.adapt is None:
        raise UsageError(
            f"model '{model.folder}' was exported by an earlier version, whose {model.network} is another network: "
            f"{known.difference}. It still labels, but it cannot be trained or converted further"
        )


def adapted(model: Model, weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return a model's weights, by the names of its network, so that today's network gives the model's scores.

    Raises:
        UsageError: the model has an old structure for which there are no such weights.
    """
    refuse_unadaptable(model)
    known = find_outdated(model)
    return dict(weights) if known is None or known.adapt is None else known.adapt(weights)
