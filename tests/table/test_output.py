"""An output is opened with its S3 options: flags, then the environment, then what its newest run recorded."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mlcls_ray.config import S3Options
from mlcls_ray.errors import UsageError
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout
from mlcls_ray.table.output import fill_options, open_output
from tests.s3_servers import BUCKET, free_port

HERE, ELSEWHERE = "http://here:9000", "http://elsewhere:9000"


def write_run(store: Store, run_id: str, s3: Mapping[str, Any], created_at: str, is_committed: bool = True) -> None:
    store.write_json(layout.run_json(run_id), {"run_id": run_id, "created_at": created_at, "config": {"s3": s3}})
    if is_committed:
        store.write_json(layout.LATEST, {"run_id": run_id})


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)


def test_a_local_output_takes_the_options_of_its_newest_committed_run(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    write_run(store, "b", {"endpoint_url": ELSEWHERE}, "2026-01-01T00:00:00Z")
    write_run(store, "a", {"endpoint_url": HERE, "timeout_s": 7.0}, "2026-01-02T00:00:00Z")
    write_run(store, "c", {"endpoint_url": ELSEWHERE}, "2026-01-03T00:00:00Z", is_committed=False)
    assert open_output(str(tmp_path)).s3 == S3Options(endpoint_url=HERE, timeout_s=7.0)


def test_an_output_without_a_committed_run_takes_the_options_of_the_newest(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    write_run(store, "b", {"endpoint_url": HERE}, "2026-01-02T00:00:00Z", is_committed=False)
    write_run(store, "c", {"endpoint_url": ELSEWHERE}, "2026-01-01T00:00:00Z", is_committed=False)
    assert open_output(str(tmp_path)).s3.endpoint_url == HERE


@pytest.mark.parametrize("text", ["", "{", "[]", '{"config": 3}', '{"config": {"s3": {"timeout_s": -1}}}', "{}"])
def test_a_damaged_record_counts_as_empty(tmp_path: Path, text: str) -> None:
    store = Store(str(tmp_path))
    store.write(layout.run_json("r"), text.encode())
    assert open_output(str(tmp_path)).s3 == S3Options()


def test_an_empty_folder_is_opened(tmp_path: Path) -> None:
    assert open_output(str(tmp_path / "none")).s3 == S3Options()


RECORDED = S3Options(endpoint_url=HERE, region="here-1", anonymous=True, timeout_s=7.0)


@pytest.mark.parametrize(
    ("flags", "environment", "is_local", "expected"),
    [
        ({}, {}, True, RECORDED),
        ({"region": "there-1", "timeout_s": 60.0}, {}, True, {"endpoint_url": HERE, "region": "there-1", "anonymous": True}),
        ({}, {"AWS_REGION": "there-1"}, True, {"endpoint_url": HERE, "anonymous": True, "timeout_s": 7.0}),
        ({}, {"AWS_PROFILE": "me"}, True, {"endpoint_url": HERE, "region": "here-1", "timeout_s": 7.0}),
        # another server than the recorded one: the recorded region and access do not count for it
        ({"endpoint_url": ELSEWHERE}, {}, True, {"endpoint_url": ELSEWHERE, "timeout_s": 7.0}),
        ({}, {"AWS_ENDPOINT_URL": ELSEWHERE}, True, {"timeout_s": 7.0}),
        ({}, {"AWS_ENDPOINT_URL_S3": HERE, "AWS_ENDPOINT_URL": ELSEWHERE}, True, RECORDED.model_copy(update={"endpoint_url": None})),
        # an output on S3 that was read without an endpoint is on AWS now
        ({}, {}, False, {"timeout_s": 7.0}),
        ({"endpoint_url": HERE}, {}, False, RECORDED),
    ],
)  # fmt: skip
def test_flags_come_before_the_environment_and_that_before_the_record(
    flags: dict[str, Any], environment: dict[str, str], is_local: bool, expected: S3Options | dict[str, Any]
) -> None:
    options = expected if isinstance(expected, S3Options) else S3Options(**expected)
    assert fill_options(S3Options(**flags), RECORDED, is_local, environment) == options


def test_a_run_that_named_no_server_gives_its_other_options_to_any() -> None:
    recorded = S3Options(region="here-1")
    assert fill_options(S3Options(endpoint_url=HERE), recorded, False, {}).region == "here-1"


def test_a_profile_is_taken_only_where_it_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config").write_text("[profile mine]\nregion = here-1\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    assert fill_options(S3Options(), S3Options(profile="mine"), True, {}).profile == "mine"
    assert fill_options(S3Options(), S3Options(profile="theirs"), True, {}).profile is None


def test_an_output_on_a_server_that_only_the_flags_name(moto: str) -> None:
    root = f"s3://{BUCKET}/{uuid.uuid4().hex}"
    flags = S3Options(endpoint_url=moto)
    write_run(Store(root, flags), "r", {"endpoint_url": moto, "timeout_s": 7.0}, "2026-01-01T00:00:00Z")
    store = open_output(root, flags)
    assert store.s3.timeout_s == 7.0
    assert json.loads(store.read(layout.LATEST) or b"") == {"run_id": "r"}


def test_an_output_on_a_server_that_is_not_there(moto: str) -> None:
    with pytest.raises(UsageError, match=r"cannot be read: .*--s3.endpoint-url"):
        open_output(f"s3://{BUCKET}/x", S3Options(endpoint_url=f"http://127.0.0.1:{free_port()}"))
