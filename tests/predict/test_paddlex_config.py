"""Pipeline YAML files of both of PaddleX's generations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from mlcls_ray.errors import UsageError
from mlcls_ray.predict.paddlex_config import (
    PIPELINES,
    TEMPLATE,
    PipelineConfig,
    choose_engine,
    parse_pipeline,
    read_pipeline,
    read_settings,
)

BETA = """
Global: {pipeline_name: multi_label_image_classification, input: https://host/x.jpg}
Pipeline: {model: PP-LCNet_x1_0_ML, batch_size: 1, device: "gpu:0", precision: bf16}
"""
FINAL = """
pipeline_name: image_multilabel_classification
use_hpip: true
engine: hpi
SubModules:
  ImageMultiLabelClassification:
    module_name: image_multilabel_classification
    model_name: PP-HGNetV2-B6_ML
    model_dir: null
    batch_size: 4
    threshold: {default: 0.3, 0: 0.9}
"""


def test_names_have_no_settings() -> None:
    assert [read_pipeline(name) for name in PIPELINES] == [PipelineConfig()] * 2


def test_format_of_3_0_beta(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_text(BETA)
    assert read_pipeline(path) == PipelineConfig(
        model="PP-LCNet_x1_0_ML", batch_size=1, device="gpu:0", precision="bf16"
    )
    assert parse_pipeline(yaml.safe_load(TEMPLATE)).model == "starter"


def test_format_of_3_x(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_text(FINAL)
    assert read_pipeline(str(path)) == PipelineConfig(
        model="PP-HGNetV2-B6_ML", batch_size=4, threshold={"default": 0.3, 0: 0.9}, engine="auto", use_hpip=True
    )
    content = yaml.safe_load(FINAL.replace("model_dir: null", "model_dir: ./best_model\n    engine: paddle_static"))
    settings = parse_pipeline(content)
    assert (settings.model, settings.engine) == ("./best_model", "paddle"), "the submodule's values win"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Pipeline: {batch_size: 0}", "batch_size: .*greater than 0"),
        ("Pipeline: {engine: genai_client}", "engine: .*'openvino'.*it is 'genai_client'"),
        ("Global: {pipeline_name: ocr}\nPipeline: {}", "unknown pipeline 'ocr'"),
        ("SubModules: {TextDetection: {}}", "lacks ImageMultiLabelClassification"),
        ("model: x", "neither Pipeline .* nor SubModules"),
        ("[1]", "is not a mapping"),
        ("a: [", "is not valid YAML"),
    ],
)
def test_wrong_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "p.yml").write_text(text)
    with pytest.raises(UsageError, match=message):
        read_pipeline(tmp_path / "p.yml")


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UsageError, match="did you mean 'multi_label_image_classification'"):
        read_pipeline("multilabel_image_classification")
    with pytest.raises(UsageError, match="cannot be read"):
        read_pipeline("nowhere.yaml")


@pytest.mark.parametrize("arguments", [{"engine": "auto"}, {"engine": "hpi"}, {"use_hpip": True}], ids=str)
def test_auto_leaves_engine_and_precision_open(arguments: dict[str, Any]) -> None:
    assert choose_engine(read_settings(arguments=arguments)) == ("auto", "auto")
    assert choose_engine(read_settings(arguments={**arguments, "precision": "fp32"})) == ("auto", "fp32")


def test_arguments_override_the_file(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_text("Pipeline: {model: starter, batch_size: 4, engine: onnxruntime, use_hpip: true}")
    assert choose_engine(read_settings(path)) == ("onnxruntime", "fp32")
    assert choose_engine(read_settings(path, arguments={"use_hpip": True})) == ("auto", "auto")
    assert choose_engine(read_settings(path, arguments={"engine": "openvino"})) == ("openvino", "fp32")
    settings = read_settings(path, arguments={"model": "other", "batch_size": 2, "device": "gpu:1"})
    assert (settings.model, settings.batch_size, settings.device) == ("other", 2, "gpu:1")
