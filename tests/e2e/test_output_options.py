"""Every command that opens an output reaches an S3 server that only `--s3.endpoint-url` names; credentials come from the environment."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from cyclopts import App

from mlcls_ray.cli import app
from mlcls_ray.config import S3Options
from mlcls_ray.errors import UsageError
from mlcls_ray.explore.report import make_report
from mlcls_ray.job.label import label
from mlcls_ray.labels.thresholds import Thresholds
from mlcls_ray.storage.store import Store
from mlcls_ray.table.label_table import open_labels
from mlcls_ray.table.output import open_output
from tests.conftest import quick_job
from tests.s3_servers import BUCKET

ENDPOINT_FLAG = "--s3.endpoint-url"
IMAGES = ("cat.jpg", "coffee.jpg", "flowers.jpg")

COMMANDS = {
    "report": "OUT",
    "query": "OUT 'SELECT count(*) FROM labels'",
    "search": "OUT --label cat --copy NEW/found",
    "diff": "OUT OUT/runs/r",
    "drift": "OUT --html NEW/drift.html",
    "export-labels": "OUT --format csv --save NEW/labels.csv",
    "tag": "OUT --write csv --save NEW/tags.csv",
    "status": "OUT",
    "verify": "OUT",
    "compact": "OUT",
    "prune": "OUT --keep 0h --dry-run",
    "gc": "OUT --dry-run",
    "publish": "OUT --format delta",
    "relabel": "OUT --threshold 0.0",
    "retry": "OUT --status not_an_image",
    "sample": "OUT --save NEW/sample -n 2",
    "dataset from-table": "OUT --save NEW/dataset",
    "evaluate": "OUT --data TRUTH --save NEW/evaluation",
    "calibrate": "OUT --data TRUTH --save NEW/thresholds.yaml",
}
"""Words for each command that opens an output: OUT is the output, NEW an empty folder, TRUTH a list of true labels."""
REFUSED = {"dataset from-table": "training reads images of this machine only"}
"""What a command says after it has opened the output: the images of this one are on S3."""


class Labeled(NamedTuple):
    """Where the images and the output are, and the server that has them."""

    root: str
    endpoint: str

    @property
    def out(self) -> str:
        return f"{self.root}/out"

    @property
    def images(self) -> list[str]:
        return [f"{self.root}/images/{name}" for name in IMAGES]


@pytest.fixture(scope="module", autouse=True)
def no_endpoint_variables() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="module")
def labeled(moto: str, demo: Path, tiny_folder: Path, loopback_ray: None) -> Labeled:
    """A committed run, read from and written to the server."""
    place = Labeled(f"s3://{BUCKET}/{uuid.uuid4().hex}", moto)
    s3 = S3Options(endpoint_url=moto)
    store = Store(place.root, s3)
    for name in IMAGES:
        store.write(f"images/{name}", (demo / name).read_bytes())
    store.write("images/bad.jpg", b"<html>")
    label(
        quick_job(
            inputs=(f"{place.root}/images",), out=place.out, model=str(tiny_folder), run_id="r",
            threshold=Thresholds(default=0.0), s3=s3,
        )
    )  # fmt: skip
    return place


def commands(parent: App, *names: str) -> Iterator[tuple[str, App]]:
    """Each command with its full name, as `dataset split`."""
    for name in parent:
        if not name.startswith("-"):
            yield from commands(parent[name], *names, name)
    if names and parent.default_command is not None:
        yield " ".join(names), parent


def test_every_command_that_opens_an_output_has_the_s3_flags() -> None:
    opening = set()
    for name, command in commands(app):
        arguments = command.assemble_argument_collection(parse_docstring=True)
        if any("output folder of `mlcls label`" in (argument.parameter.help or "").lower() for argument in arguments):
            opening.add(name)
            assert any(ENDPOINT_FLAG in argument.names for argument in arguments), name
    assert opening - {"browse"} == set(COMMANDS)  # a server: tests/explore/browse opens a bucket by it


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_reaches_a_server_that_only_the_flag_names(name: str, labeled: Labeled, tmp_path: Path) -> None:
    truth = tmp_path / "truth.csv"
    truth.write_text("uri,labels\n" + "".join(f"{uri},cat\n" for uri in labeled.images))
    words = COMMANDS[name].replace("OUT", labeled.out).replace("TRUTH", str(truth)).replace("NEW", str(tmp_path))
    try:
        app(f"{name} {words} {ENDPOINT_FLAG} {labeled.endpoint}", exit_on_error=False)
    except SystemExit as end:
        assert end.code in (None, 0), name
    except UsageError as error:
        assert name in REFUSED, error
        assert REFUSED[name] in str(error)


def test_a_local_output_over_images_on_s3_needs_no_flag(labeled: Labeled, tiny_folder: Path, tmp_path: Path) -> None:
    """The server in `run.json` is the one that the report reads its thumbnails from."""
    out = str(tmp_path / "out")
    job = quick_job(
        inputs=tuple(labeled.images), out=out, model=str(tiny_folder),
        threshold=Thresholds(default=0.0), s3=S3Options(endpoint_url=labeled.endpoint),
    )  # fmt: skip
    label(job)
    assert open_output(out).s3.endpoint_url == labeled.endpoint
    assert make_report(open_labels(out)).count("data:image/") >= len(IMAGES)
