"""The job's configuration: both files, overrides, and errors that name field, value and way out."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from mlcls_ray.config import LabelJob, dump_job, load_config, load_job
from mlcls_ray.errors import UsageError
from mlcls_ray.train.config import FinetuneJob
from tests.conftest import ROOT

CONFIGS = sorted((ROOT / "configs").glob("label_*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_each_config_is_valid(path: Path) -> None:
    job = load_job(path, {})
    assert load_job(None, yaml.safe_load(dump_job(job))) == job


def test_the_finetune_config_shows_the_defaults(tmp_path: Path) -> None:
    needed = {"data": tmp_path, "out": tmp_path}
    shown = load_config(FinetuneJob, ROOT / "configs" / "finetune.yaml", needed)
    assert shown.model_copy(update={"early_stopping_patience": None}) == FinetuneJob.model_validate(needed)


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
