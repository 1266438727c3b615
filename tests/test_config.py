"""The job's configuration: both files, overrides, and errors that name field, value and way out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from mlcls_ray.config import RENAMED, LabelJob, S3Options, Thresholds
from mlcls_ray.config_file import dump_config, load_config, load_job, make_config
from mlcls_ray.devices import Device
from mlcls_ray.errors import UsageError
from mlcls_ray.labels.label_map import parse_label_map
from mlcls_ray.models.cache import open_model
from mlcls_ray.serve.config import ServeConfig
from mlcls_ray.train import config as train_config
from mlcls_ray.train.config import FinetuneJob
from tests.conftest import ROOT

CONFIGS = sorted((ROOT / "configs").glob("label_*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_each_config_is_valid(path: Path) -> None:
    job = load_job(path, {})
    assert load_job(None, yaml.safe_load(dump_config(job))) == job


def test_the_service_config_is_valid() -> None:
    load_config(ServeConfig, ROOT / "configs" / "serve.yaml", {})


def test_the_finetune_config_shows_the_defaults(tmp_path: Path) -> None:
    needed = {"data": tmp_path, "out": tmp_path}
    shown = load_config(FinetuneJob, ROOT / "configs" / "finetune.yaml", needed)
    defaults = FinetuneJob.model_validate(needed)
    assert {name: value for name, value in defaults if value is not None and value != getattr(shown, name)} == {}


def test_the_folder_config_is_complete_and_shows_the_defaults() -> None:
    path = ROOT / "configs" / "label_folder.yaml"
    assert set(yaml.safe_load(path.read_text())) == set(LabelJob.model_fields)
    assert load_job(path, {}) == LabelJob()


def test_overrides_win(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("inputs: photos\nbatch_size: 8\n")
    job = load_job(tmp_path / "job.yaml", {"batch_size": 4})
    assert (job.inputs, job.batch_size) == (("photos",), 4)


@pytest.mark.parametrize(
    ("text", "default", "classes"),
    [
        ("0.4", 0.4, {}),
        ("{default: 0.4, cat: 0.6}", 0.4, {"cat": 0.6}),
        ("{cat: 0.6, 2: 0.1}", None, {"cat": 0.6, "2": 0.1}),
    ],
)
def test_threshold_as_people_write_it(text: str, default: float | None, classes: dict[str, float]) -> None:
    threshold = load_job(None, {"threshold": yaml.safe_load(text)}).threshold
    assert (threshold.default, threshold.classes) == (default, classes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("batchsize: 4", "unknown field 'batchsize': did you mean 'batch_size'"),
        ("batch_size: 0", "^config .*: batch_size: .*'auto', or .*greater than 0.*it is 0"),
        ("s3: {endpoint: x}", "unknown field 's3.endpoint': did you mean 'endpoint_url'"),
        ("placement: everywhere", "placement: .*'everywhere'"),
        ("annotate: some", "annotate"),
        ("run_id: ../x", "run_id: .*it is '../x'"),
        ("max_pixels: 999999999999", "max_pixels"),
        ("threshold: 1.5", "threshold"),
        ("device: tpu", "device: unknown device 'tpu': did you mean 'xpu'"),
        ("wait_for_resources: 15", "wait_for_resources: .*string"),
        ("wait_for_resources: 15min", "wait_for_resources: '15min' is not a time: .* s, m or h, as in 15m"),
        ("engine: fast", "engine: .*'openvino'.*it is 'fast'"),
        ("workers_per_card: 2", "'workers_per_card' is called workers_per_device now"),
        ("[1, 2]", "not a mapping"),
        ("a: [", "not valid YAML"),
        ("!!python/object/apply:os.getcwd []", "not valid YAML"),
    ],
)
def test_wrong_values_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "job.yaml").write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        load_job(tmp_path / "job.yaml", {})
    assert "\n" not in str(caught.value)


def test_all_wrong_values_are_named_at_once(tmp_path: Path) -> None:
    text = "batchsize: x\nworkers: many\nbatch_size: -3\nplacement: many\ns3: {endpoint: x, timeout_s: soon}\n"
    (tmp_path / "job.yaml").write_text(text)
    with pytest.raises(UsageError) as caught:
        load_job(tmp_path / "job.yaml", {})
    message = str(caught.value)
    assert all(f"{field}:" in message for field in ("workers", "batch_size", "placement", "s3.timeout_s")), message
    assert "'s3.endpoint': did you mean" in message
    assert message.endswith("; and 1 more")
    assert message.count("batch_size") == 1, "the alternatives of a union are one problem"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"models": "a,b", "model": "c"}, "models: the job names model 'c' too"),
        ({"models": "a,b,a"}, "models: 'a' is there more than once; name each model once"),
        ({"models": "a,b", "incremental": True}, "incremental looks into one model's table.*once for each model"),
        ({"models": "a,b", "retry": ["timeout"]}, "retry looks into one model's table.*once for each model"),
        ({"placement": "card"}, "placement: card decodes on NVIDIA cards, and the device is cpu; use device: gpu"),
        ({"placement": "card", "device": "npu:0"}, "and the device is npu:0"),
        (
            {"placement": "card", "device": "gpu", "decode": "exact"},
            "placement: card .*decode: exact.*leave one of them out",
        ),
        (
            {"placement": "card", "device": "gpu", "engine": "tensorrt"},
            "engine tensorrt takes them from host.*; use onnxruntime",
        ),
        ({"top_k": 3}, "top_k: 3 has no effect with all_scores: all; set all_scores: top_k"),
        ({"embeddings": True, "engine": "paddle"}, "embeddings: engine paddle gives scores only; use openvino"),
        ({"embeddings": True, "precision": "int8"}, "embeddings: an int8 graph gives scores only"),
    ],
)
def test_combinations_that_cannot_work_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_job(None, fields)


def test_several_models_may_share_duplicates() -> None:
    job = load_job(None, {"models": ["a,b", "c"], "dedupe": True})
    assert job.model_sources == job.models == ("a", "b", "c")
    assert LabelJob().model_sources == ("starter",)


def test_a_device_is_parsed_once_and_written_as_text() -> None:
    job = load_job(None, {"device": "GPU:0,1"})
    assert job.device == Device("gpu", (0, 1))
    assert job.model_dump(mode="json")["device"] == "gpu:0,1"
    assert LabelJob(device=Device("cpu")) == LabelJob()


def test_flags_override_the_file_and_the_file_overrides_the_defaults(tmp_path: Path) -> None:
    """A flag counts because it is given, even with the default as its value; groups are merged field by field."""
    path = tmp_path / "job.yaml"
    path.write_text("engine: paddle\ntop_k: 3\nall_scores: top_k\ns3: {region: eu, endpoint_url: http://a}\n")
    job = load_job(path, {"engine": "auto", "s3": {"endpoint_url": "http://b"}})
    assert (job.engine, job.top_k, job.fetch_threads) == ("auto", 3, LabelJob().fetch_threads)
    assert (job.s3.region, job.s3.endpoint_url) == ("eu", "http://b")


@pytest.mark.parametrize("model", [LabelJob, ServeConfig, FinetuneJob])
def test_every_option_is_described_in_a_phrase(model: type[BaseModel]) -> None:
    for name, field in model.model_fields.items():
        nested = field.annotation if isinstance(field.annotation, type) else None
        if nested is not None and issubclass(nested, BaseModel):
            test_every_option_is_described_in_a_phrase(nested)
        assert len((field.description or nested.__doc__ or "").split()) > 2, name


def test_the_dump_comments_each_field() -> None:
    text = dump_config(LabelJob(threshold=Thresholds(default=0.3)))
    plain = " ".join(line.strip().removeprefix("# ") for line in text.splitlines())
    for field in (*LabelJob.model_fields.values(), *S3Options.model_fields.values()):
        assert str(field.description) in plain
    assert load_job(None, yaml.safe_load(text)).threshold.default == 0.3


@pytest.mark.parametrize(("model", "renamed"), [(LabelJob, RENAMED), (FinetuneJob, train_config.RENAMED)])
def test_old_names_are_refused_with_the_new_one(model: type[BaseModel], renamed: dict[str, str]) -> None:
    needed = {"data": "d", "out": "o"} if model is FinetuneJob else {}
    for old, new in renamed.items():
        group, _, name = old.rpartition(".")
        with pytest.raises(UsageError, match=f"'{old}' is called {re.escape(new)} now"):
            make_config(model, {**needed, **({group: {name: 1}} if group else {name: 1})}, "", renamed)


def test_failure_limit() -> None:
    limits = [
        load_job(None, {"max_failures": value}).failure_limit(1000) for value in (None, 7, "7", "1%", "0.25%", "100%")
    ]
    assert limits == [None, 7, 7, 10, 2, 1000]
    for wrong in ("-1", "101%", "some", -1):
        with pytest.raises(UsageError, match="max_failures"):
            load_job(None, {"max_failures": wrong})


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        load_job(tmp_path / "none.yaml", {})


def test_a_job_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        LabelJob().batch_size = 3  # type: ignore[misc]


def test_the_example_of_a_label_map_fits_the_starter() -> None:
    resolved = parse_label_map(ROOT / "configs" / "map_groups.yaml").resolve(open_model("starter").vocabulary)
    assert len(resolved.labels) == 80 - 8 + 1 - 10 + 1 - 2
