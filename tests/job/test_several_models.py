"""Several models in one pass over the images: each model's output is what a job of its own would have written."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlcls_ray import open_labels, schema
from mlcls_ray.config import LabelJob
from mlcls_ray.errors import Status, UsageError
from mlcls_ray.images.preprocess import Preprocess
from mlcls_ray.job.cluster import living_nodes
from mlcls_ray.job.label import label, outputs, prepare_models
from mlcls_ray.job.plan import freeze
from mlcls_ray.job.retry import retry_job
from mlcls_ray.models.networks.tiny import export_tiny
from mlcls_ray.stages import read
from mlcls_ray.stages.read import ReadImages
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout
from mlcls_ray.table.records import read_success
from mlcls_ray.table.verify import verify
from tests.conftest import TINY_VOCABULARY, encode, picture
from tests.stages.test_read import options

pytestmark = pytest.mark.usefixtures("loopback_ray")

COMPARED = (schema.ROW_ID, schema.URI, schema.STATUS, schema.LABELS, schema.SCORES, schema.ALL_SCORES, schema.MODEL)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Two models with other vocabularies and input sizes."""
    base = tmp_path_factory.mktemp("models")
    for name in ("one", "two"):
        (base / name).mkdir()
    export_tiny(base / "one", TINY_VOCABULARY, name="one")
    export_tiny(base / "two", ("cat", "dog", "bear"), input_size=48, seed=1, name="two")
    return str(base / "one"), str(base / "two")


@pytest.fixture
def job(folders: tuple[str, str], folder_of_images: Path, tmp_path: Path) -> LabelJob:
    return LabelJob(
        inputs=(str(folder_of_images),), out=str(tmp_path / "out"), models=folders, run_id="r", rows_per_fragment=7, block_rows=4
    )  # fmt: skip


def table(out: str) -> pa.Table:
    return pq.read_table(f"{out}/runs/r/labels").sort_by(schema.ROW_ID).select(COMPARED)


def test_each_output_is_what_its_own_job_writes(job: LabelJob, tmp_path: Path) -> None:
    success = label(job)
    assert success is not None
    assert success.rows == 30
    for out, model in zip(outputs(job), job.models, strict=True):
        assert verify(Store(out)) == []
        alone = job.model_copy(update={"models": (), "model": model, "out": str(tmp_path / f"alone-{Path(out).name}")})
        label(alone)
        assert table(out).equals(table(alone.out))
    assert label(job) == success  # committed, and left as it is


def test_their_common_folder_names_them(job: LabelJob) -> None:
    label(job)
    message = f"'{job.out}' holds no committed run: did you mean '{outputs(job)[0]}' or '{outputs(job)[1]}'"
    with pytest.raises(UsageError, match=re.escape(message)):
        open_labels(job.out)
    with pytest.raises(UsageError, match=re.escape(message)):
        retry_job(job.out, (), None, None)
    with pytest.raises(UsageError, match="holds no runs: did you mean"):
        verify(Store(job.out))


def test_what_only_one_model_has_runs_again_in_both(job: LabelJob) -> None:
    """As if the driver had died between two models' fragments, and again between their commits."""
    label(job)
    one, two = (Store(out) for out in outputs(job))
    for store in (one, two):
        store.remove(layout.success("r"))
    lost = sorted(store_names(two))[1]
    two.remove(f"{layout.labels_folder('r')}/{lost}")
    label(job)
    assert [verify(store) for store in (one, two)] == [[], []]
    assert store_names(one) == store_names(two)
    two.remove(layout.success("r"))
    before = read_success(one, "r")
    label(job)
    assert verify(two) == []
    assert read_success(one, "r") == before


def store_names(store: Store) -> list[str]:
    return store.names(layout.labels_folder("r"))


def test_a_driver_that_died_before_the_second_manifest(job: LabelJob) -> None:
    prepared = prepare_models(job)
    freeze(prepared[0], living_nodes())
    label(job)
    assert [verify(Store(out)) for out in outputs(job)] == [[], []]


def test_an_unfinished_run_without_a_name_is_found(job: LabelJob) -> None:
    unnamed = job.model_copy(update={"run_id": None})
    success = label(unnamed)
    assert success is not None
    second = Store(outputs(job)[1])
    second.remove(layout.success(success.run_id))
    again = label(unnamed)
    assert again is not None
    assert again.run_id == success.run_id
    assert verify(second) == []


def test_other_inputs_under_the_same_name(job: LabelJob, tmp_path: Path) -> None:
    label(job.model_copy(update={"models": (), "model": job.models[1], "out": outputs(job)[1], "limit": 3}))
    with pytest.raises(UsageError, match="limit: 3 then, None now"):
        label(job)


def test_what_does_not_go_together(job: LabelJob) -> None:
    for name, value in {"incremental": True, "dedupe": True, "retry": (Status.TIMEOUT,)}.items():
        with pytest.raises(UsageError, match=f"{name} looks into one model's table"):
            label(job.model_copy(update={name: value}))
    with pytest.raises(UsageError, match="'one' is there more than once"):
        label(job.model_copy(update={"models": (job.models[0], job.models[0])}))
    with pytest.raises(UsageError, match="no output"):
        label(job.model_copy(update={"out": ""}))


@pytest.mark.parametrize(("side", "decoded"), [(60, 1), (2000, 2)])
def test_an_image_is_decoded_once_unless_a_fraction_is_enough_for_one(
    side: int, decoded: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.jpg").write_bytes(encode(picture(side, side)))
    sizes = [Preprocess(size=(size, size), backend="pil", interpolation="BILINEAR") for size in (320, 48, 320)]
    calls = []
    original = read.decode

    def counted(*words: object) -> object:
        calls.append(words)
        return original(*words)  # type: ignore[arg-type]

    monkeypatch.setattr(read, "decode", counted)
    stage = ReadImages(options(preprocess=sizes[0], others=tuple(sizes[1:]), max_pixels=10**7))
    one = stage.read(str(tmp_path / "a.jpg"), keep_bytes=False)
    assert len(calls) == decoded
    assert (one.width, one.height) == (side, side)
    for pixels, preprocess in zip(one.pixels, sizes, strict=True):
        alone = ReadImages(options(preprocess=preprocess, max_pixels=10**7)).read(
            str(tmp_path / "a.jpg"), keep_bytes=False
        )
        assert (pixels == alone.pixels[0]).all()


def test_side_by_side_and_apart_again() -> None:
    one, two = pa.table({"a": [1, 2], "b": ["x", "y"]}), pa.table({"a": [3, 4]})
    joined = schema.join_models([one, two])
    assert joined.column_names == ["a", "b", "1:a"]
    assert schema.split_models(joined, 2) == [one, two]


def test_the_commit_is_each_models_own(job: LabelJob) -> None:
    label(job)
    told = [json.loads(Path(out, "runs/r/run.json").read_text()) for out in outputs(job)]
    assert [one["model"] for one in told] == ["one", "two"]
    assert [len(one["thresholds"]) for one in told] == [len(TINY_VOCABULARY), 3]
