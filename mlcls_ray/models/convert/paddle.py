"""Network → inference folder, in the format that `artifact` and PaddleX read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import paddle
import yaml
from paddle import nn

from mlcls_ray.images.preprocess import Preprocess
from mlcls_ray.models.artifact import CONFIG, OWN_NAME


def export_network(network: nn.Layer, input_size: int, folder: Path) -> None:
    """Write program and parameters. Input `x` is float32 [N, 3, input_size, input_size] with any N."""
    folder.mkdir(parents=True, exist_ok=True)
    network.eval()
    # paddle.jit.to_static finds the specification by the parameter's name: forward(self, x).
    specification = [paddle.static.InputSpec([None, 3, input_size, input_size], "float32", "x")]
    static = paddle.jit.to_static(network, input_spec=specification, full_graph=True)
    paddle.jit.save(static, str(folder / "inference"))


def write_config(
    folder: Path,
    network: str,
    preprocess: Preprocess,
    vocabulary: Sequence[str],
    threshold: float | list[float],
    name: str | None = None,
) -> None:
    """Write `inference.yml` as PaddleClas's export does. `preprocess` must resize to a fixed size, without a crop.

    `name` is the model's own name, if it has another one than its network.
    """
    assert preprocess.size is not None and preprocess.crop is None
    operations = [
        {
            "ResizeImage": {
                "size": list(preprocess.size),
                "interpolation": preprocess.interpolation.lower(),
                "backend": preprocess.backend,
            }
        },
        {
            "NormalizeImage": {
                "scale": preprocess.scale,
                "mean": list(preprocess.mean),
                "std": list(preprocess.std),
                "order": "",
                "channel_num": 3,
            }
        },
        {"ToCHWImage": None},
    ]
    config = {
        "Global": {"model_name": network, **({OWN_NAME: name} if name else {})},
        "PreProcess": {"transform_ops": operations},
        "PostProcess": {"MultiLabelThreshOutput": {"threshold": threshold, "label_list": list(vocabulary)}},
    }
    (folder / CONFIG).write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True), encoding="utf-8")
