"""`NetworkSpec`: what is known about a network that people choose by name. Each network's file ends with its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from paddle import nn

    from mlcls_ray.images.preprocess import Preprocess

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class NetworkSpec:
    """The builder of a network, and its usual settings."""

    name: str
    """The model's name in the `inference.yml` of an exported folder."""
    build: Callable[[int], nn.Layer]
    """Number of classes → a network with random weights that gives logits, in the structure of the published weights."""
    channels: int
    """Channels of the feature maps that the head takes."""
    input_size: int
    """Side of the square input in pixels."""
    usual_head: str = "ml_decoder"
    """The head that `build` makes, a key of `heads.HEADS`."""
    head_attribute: Literal["fc", "head"] = "fc"
    """The network's attribute that holds the head; all other attributes are the backbone."""
    build_trainable: Callable[[int], nn.Layer] | None = None
    """The builder for fine-tuning where it is not `build`: the same parameters, another forward pass."""
    initial_weights: str | None = None
    """The named model whose weights fine-tuning starts from by default; None: random weights."""
    unused: frozenset[str] = frozenset()
    """Parameters of the published weights that the scores do not depend on; an exported program may lack them."""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    @property
    def preprocess(self) -> Preprocess:
        """The usual preprocessing: squashed to a square by Pillow, then mean and standard deviation."""
        from mlcls_ray.images.preprocess import Preprocess  # not at the top: Paddle Lite's Python has no pydantic

        size = (self.input_size, self.input_size)
        return Preprocess(size=size, backend="pil", interpolation="BILINEAR", mean=self.mean, std=self.std)


def is_head(parameter: str) -> bool:
    """Tell whether a parameter of this name belongs to the head of a network."""
    return parameter.startswith(("fc.", "head."))
