"""Pipeline YAML, in both of PaddleX's formats: the tutorial's (3.0 beta) and 3.x's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, PositiveInt

from mlcls_ray.config_file import make_config, read_mapping
from mlcls_ray.errors import UsageError, suggest

PIPELINES = ("multi_label_image_classification", "image_multilabel_classification")
"""The pipeline's name in PaddleX 3.0 beta, and in 3.x."""
SUBMODULE = "ImageMultiLabelClassification"
TEMPLATE = """\
Global:
  pipeline_name: multi_label_image_classification

Pipeline:
  model: starter        # or PP-LCNet_x1_0_ML, PP-HGNetV2-B0_ML, PP-HGNetV2-B4_ML, PP-HGNetV2-B6_ML, ResNet50_ML,
                        # CLIP_vit_base_patch16_448_ML, or the folder of a fine-tuned model
  batch_size: 1
  device: cpu           # gpu:0, npu:0, …
  threshold: null       # one number, class: number pairs with `default`, or a list with one per class; null: the model's own
"""


class PipelineConfig(BaseModel):
    """What a pipeline is told; None: the default of whoever asks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str | None = None
    batch_size: PositiveInt | None = None
    device: str | None = None
    threshold: Any = None
    use_hpip: bool | None = None


def read_pipeline(pipeline: str | Path) -> PipelineConfig:
    """The settings behind a pipeline's name, or in a YAML file of either format.

    Raises:
        UsageError: an unknown name, or a file that is none of the formats.
    """
    text = str(pipeline)
    if not text.endswith((".yaml", ".yml")):
        if text not in PIPELINES:
            raise UsageError(f"unknown pipeline '{text}'{suggest(text, PIPELINES)}; or give a .yaml file")
        return PipelineConfig()
    return parse_pipeline(read_mapping(Path(text), "pipeline"), text)


def parse_pipeline(loaded: Mapping[str, Any], where: str = "config") -> PipelineConfig:
    """The settings in a loaded file.

    Raises:
        UsageError: neither `Pipeline` nor `SubModules`, another pipeline, or a wrong value.
    """
    name = loaded.get("pipeline_name") or _mapping(loaded.get("Global")).get("pipeline_name") or PIPELINES[0]
    if name not in PIPELINES:
        raise UsageError(f"{where}: unknown pipeline '{name}'{suggest(str(name), PIPELINES)}")
    if "SubModules" in loaded:
        module = _mapping(_mapping(loaded["SubModules"]).get(SUBMODULE))
        if not module:
            raise UsageError(f"{where}: SubModules lacks {SUBMODULE}")
        given = {
            "model": module.get("model_dir") or module.get("model_name"),
            "batch_size": module.get("batch_size"),
            "threshold": module.get("threshold"),
            "use_hpip": module.get("use_hpip", loaded.get("use_hpip")),
        }
    elif "Pipeline" in loaded:
        section = _mapping(loaded["Pipeline"])
        given = {name: section.get(name) for name in ("model", "batch_size", "device", "threshold", "use_hpip")}
    else:
        raise UsageError(f"{where} has neither Pipeline (3.0 beta) nor SubModules (3.x)")
    return make_config(PipelineConfig, given, f"{where}: ")


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
