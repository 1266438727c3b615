"""Pipeline YAML files in both of PaddleX's formats: the tutorial's (3.0 beta) and that of 3.x."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, PositiveInt, field_validator

from mlcls_ray.config_file import make_config, read_mapping
from mlcls_ray.devices import parse_device
from mlcls_ray.engines.engine_config import USUAL_ENGINES
from mlcls_ray.errors import UsageError, suggest
from mlcls_ray.field_types import EngineOrAuto, PrecisionOrAuto

PIPELINES = ("multi_label_image_classification", "image_multilabel_classification")
"""The pipeline's name in PaddleX 3.0 beta, and in 3.x."""
SUBMODULE = "ImageMultiLabelClassification"
PADDLEX_ENGINES = {"paddle_static": "paddle", "paddle_dynamic": "paddle", "hpi": "auto"}
"""PaddleX's names of engines, and ours for the same."""
TEMPLATE = """\
Global:
  pipeline_name: multi_label_image_classification

Pipeline:
  model: starter        # or PP-LCNet_x1_0_ML, PP-HGNetV2-B0_ML, PP-HGNetV2-B4_ML, PP-HGNetV2-B6_ML, ResNet50_ML,
                        # CLIP_vit_base_patch16_448_ML, or the folder of a fine-tuned model
  batch_size: 1
  device: cpu           # gpu:0, npu:0, …
  engine: null          # openvino, onnxruntime, tensorrt, or auto: the fastest on this machine; null: paddle (gpu: onnxruntime)
  precision: null       # bf16, tf32, fp16, int8, or auto; null: fp32, with engine auto: auto
  threshold: null       # one number, class: number pairs with `default`, or a list with one per class; null: the model's own
  map: null             # other names for labels: car: vehicle, or a YAML file; null: the model's own
"""


class PipelineConfig(BaseModel):
    """The settings of a pipeline. None: the default of `create_pipeline`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str | None = None
    batch_size: PositiveInt | None = None
    device: str | None = None
    threshold: Any = None
    map: Any = None
    engine: EngineOrAuto | None = None
    precision: PrecisionOrAuto | None = None
    use_hpip: bool | None = None

    @field_validator("engine", mode="before")
    @classmethod
    def _translate_engine(cls, value: Any) -> Any:
        return PADDLEX_ENGINES.get(value, value) if isinstance(value, str) else value


def read_settings(
    pipeline: str | Path | None = None,
    config: Mapping[str, Any] | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> PipelineConfig:
    """Read a pipeline's settings. Arguments of `create_pipeline` that are not None override them.

    Raises:
        UsageError: as `read_pipeline` and `parse_pipeline`, or an argument is wrong.
    """
    settings = parse_pipeline(config) if config is not None else read_pipeline(pipeline or PIPELINES[0])
    overrides = {name: value for name, value in (arguments or {}).items() if value is not None}
    if overrides.get("use_hpip"):
        overrides.setdefault("engine", "auto")  # also where the file names an engine
    return make_config(PipelineConfig, {**dict(settings), **overrides}, "create_pipeline: ")


def choose_engine(settings: PipelineConfig) -> tuple[EngineOrAuto, PrecisionOrAuto]:
    """Return engine and precision. Where they are not set: auto with `use_hpip`, else the device's usual engine in fp32."""
    usual = USUAL_ENGINES.get(parse_device(settings.device or "cpu").kind, "paddle")
    engine: EngineOrAuto = settings.engine or ("auto" if settings.use_hpip else usual)
    return engine, settings.precision or ("auto" if engine == "auto" else "fp32")


def read_pipeline(pipeline: str | Path) -> PipelineConfig:
    """Read the settings of a pipeline: a name (no settings), or a YAML file in either format.

    Raises:
        UsageError: the name is unknown, or the file has neither format.
    """
    text = str(pipeline)
    if not text.endswith((".yaml", ".yml")):
        if text not in PIPELINES:
            raise UsageError(f"unknown pipeline '{text}'{suggest(text, PIPELINES)}; or give a .yaml file")
        return PipelineConfig()
    return parse_pipeline(read_mapping(Path(text), "pipeline"), text)


def parse_pipeline(content: Mapping[str, Any], source: str = "config") -> PipelineConfig:
    """Parse the content of a pipeline file; `source` is how messages call it.

    Raises:
        UsageError: there is neither `Pipeline` nor `SubModules`, it is another pipeline, or a value is wrong.
    """
    name = content.get("pipeline_name") or _mapping(content.get("Global")).get("pipeline_name") or PIPELINES[0]
    if name not in PIPELINES:
        raise UsageError(f"{source}: unknown pipeline '{name}'{suggest(str(name), PIPELINES)}")
    if "SubModules" in content:
        module = _mapping(_mapping(content["SubModules"]).get(SUBMODULE))
        if not module:
            raise UsageError(f"{source}: SubModules lacks {SUBMODULE}")
        fields = {
            "model": module.get("model_dir") or module.get("model_name"),
            "batch_size": module.get("batch_size"),
            "threshold": module.get("threshold"),
            **{name: module.get(name, content.get(name)) for name in ("map", "engine", "precision", "use_hpip")},
        }
    elif "Pipeline" in content:
        section = _mapping(content["Pipeline"])
        fields = {name: section.get(name) for name in PipelineConfig.model_fields}
    else:
        raise UsageError(f"{source} has neither Pipeline (3.0 beta) nor SubModules (3.x)")
    return make_config(PipelineConfig, fields, f"{source}: ")


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
