"""An option exists once: the command line, the sample YAML and the documents follow from the registries and the option models."""

from __future__ import annotations

from typing import get_args

import pytest
import yaml
from cyclopts import App
from pydantic import BaseModel

from mlcls_ray import config
from mlcls_ray.cli import app
from mlcls_ray.config import LabelJob
from mlcls_ray.config_file import choices, flag_of
from mlcls_ray.datasets import sample as sampling
from mlcls_ray.devices import DEVICE_KINDS
from mlcls_ray.engines import export as model_export
from mlcls_ray.registry import ENGINES, TABLE_FORMATS
from mlcls_ray.serve.config import ServeConfig
from mlcls_ray.table.export import formats as export_formats
from mlcls_ray.table.tags import tagging
from mlcls_ray.train.config import FinetuneJob
from tests.conftest import ROOT

REFERENCE = ROOT / "docs" / "reference"
MODELS = {"label": LabelJob, "estimate": LabelJob, "submit": LabelJob, "serve": ServeConfig, "finetune": FinetuneJob}


def flag_choices(command: App, flag: str) -> tuple[str, ...]:
    argument = next(argument for argument in command.assemble_argument_collection() if flag in argument.names)
    return tuple(argument.get_choices() or ())


def fields(model: type[BaseModel], prefix: str = "") -> list[str]:
    """The names of a model's fields, those of its nested groups as `s3.region`."""
    names: list[str] = []
    for name, field in model.model_fields.items():
        nested = field.annotation if isinstance(field.annotation, type) else None
        is_group = (
            nested is not None and issubclass(nested, BaseModel) and nested not in (config.Thresholds, config.LabelMap)
        )
        names += fields(nested, f"{prefix}{name}.") if is_group else [f"{prefix}{name}"]
    return names


@pytest.mark.parametrize("command", ["label", "serve"])
def test_engines_are_those_of_the_registry(command: str) -> None:
    expected = ("auto", *ENGINES)
    assert choices(MODELS[command].model_fields["engine"].annotation) == expected
    assert flag_choices(app[command], "--engine") == expected


def test_table_formats_are_those_of_the_registry() -> None:
    assert get_args(config.TableFormat) == ("parquet", *TABLE_FORMATS)
    assert flag_choices(app["label"], "--format") == ("parquet", *TABLE_FORMATS)
    assert flag_choices(app["publish"], "--format") == tuple(TABLE_FORMATS)


def test_lists_that_the_help_repeats_are_those_of_the_code() -> None:
    """The command line names these itself, because the modules that own them load Arrow and DuckDB."""
    assert flag_choices(app["export-labels"], "--format") == tuple(export_formats.FORMATS)
    assert flag_choices(app["tag"], "--write") == (*tagging.KINDS, "csv")
    assert flag_choices(app["export"], "--format") == get_args(model_export.Format)
    assert flag_choices(app["sample"], "--strategy") == get_args(sampling.Strategy)


def test_the_documents_name_all_choices() -> None:
    for page in (REFERENCE / "configuration.md", REFERENCE / "cli.md", ROOT / "configs" / "label_folder.yaml"):
        text = page.read_text(encoding="utf-8")
        for name in (*ENGINES, *TABLE_FORMATS, *DEVICE_KINDS):
            assert name in text, f"{page.name}: {name}; run scripts/docs"


@pytest.mark.parametrize("command", MODELS)
def test_every_field_is_a_flag_of_its_commands(command: str) -> None:
    arguments = app[command].assemble_argument_collection()
    flags = {name for argument in arguments for name in argument.names}
    expected = {flag_of(name) for name in fields(MODELS[command]) if name != "inputs"}
    assert expected <= flags


def test_the_sample_shows_every_field() -> None:
    shown = yaml.safe_load((ROOT / "configs" / "label_folder.yaml").read_text(encoding="utf-8"))
    assert list(shown) == list(LabelJob.model_fields)
