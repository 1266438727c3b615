"""Freeze parameters: the backbone, or its first sections."""

from __future__ import annotations

from paddle import nn

from mlcls_ray.models.networks.spec import is_head
from mlcls_ray.train.sized_job import SizedJob

SECTIONS = 8
"""The backbone is divided into so many sections with equally many layers, from input to output."""


def backbone_sections(network: nn.Layer) -> dict[str, int]:
    """Map each parameter of the backbone to its section, 0 (at the input) to 7. All parameters of a layer are in one section."""
    backbone = [name for name, _ in network.named_parameters() if not is_head(name)]
    layers = {layer: place for place, layer in enumerate(dict.fromkeys(name.rpartition(".")[0] for name in backbone))}
    return {name: layers[name.rpartition(".")[0]] * SECTIONS // len(layers) for name in backbone}


def frozen_parameters(network: nn.Layer, freeze_fraction: float) -> set[str]:
    """Return the names of the backbone's parameters that are never trained; `freeze_fraction` is rounded to whole sections."""
    frozen_sections = round(freeze_fraction * SECTIONS)
    return {name for name, section in backbone_sections(network).items() if section < frozen_sections}


def freeze(network: nn.Layer, is_head_only: bool, job: SizedJob) -> None:
    """Switch to training mode, with the backbone or a part of it frozen. Norms of frozen layers keep their statistics."""
    backbone = set(backbone_sections(network))
    frozen = backbone if is_head_only else frozen_parameters(network, job.freeze_fraction)
    network.train()
    for name, layer in network.named_sublayers():
        is_frozen = any(
            f"{name}.{parameter}" in frozen for parameter, _ in layer.named_parameters(include_sublayers=False)
        )
        is_frozen_norm = job.freeze_batchnorm and isinstance(layer, nn.BatchNorm2D)
        if is_frozen or is_frozen_norm or (is_head_only and not is_head(f"{name}.")):
            layer.training = False
    for name, parameter in network.named_parameters():
        if name in backbone:
            parameter.stop_gradient = name in frozen
