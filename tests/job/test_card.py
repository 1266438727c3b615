"""Placement card on a real Ray with faked GPUs: its tables are those of the CPUs, and a card that fails costs no row."""

from __future__ import annotations

import os
import shutil
import warnings
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from benchmarks.tiny_network import export_tiny
from hostile_corpus import write_corpus

from mlcls_ray import schema
from mlcls_ray.config import LabelJob
from mlcls_ray.devices import parse_device
from mlcls_ray.job.check import check_job
from mlcls_ray.job.cluster import living_nodes
from mlcls_ray.job.commit import commit
from mlcls_ray.job.label import label
from mlcls_ray.job.monitor import MAX_LOSSES, SUSPECT_LOSSES
from mlcls_ray.job.placement import try_on_worker
from mlcls_ray.job.plan import plan_run
from mlcls_ray.job.pools import size_pools
from mlcls_ray.job.supervise import label_until_done
from mlcls_ray.storage.store import Store
from mlcls_ray.storage.uris import path_of_uri
from mlcls_ray.table import layout
from mlcls_ray.table.verify import verify
from tests.conftest import BAD_IN_FOLDER, TINY_VOCABULARY, encode, picture, quick_job
from tests.faults.exactly_once import exactly_once
from tests.job.card_stages import CARD_STAGES, MEMORY, POISON

pytestmark = [
    pytest.mark.usefixtures("loopback_ray"),
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++, which compiles the card's kernels for the CPU"),
]
BATCH = 8


def label_on_faked_cards(job: LabelJob) -> None:
    """Label with placement card, as `label` does where a card decodes."""
    nodes, device = living_nodes(), parse_device("gpu")
    run = plan_run(check_job(job), nodes)
    on_card = job.model_copy(update={"placement": "card", "device": device})
    pools = size_pools(on_card, device, nodes, run.rows, 1000, BATCH)
    run = run._replace(job=run.job.model_copy(update={"placement": "card"}), device=device, pools=pools)
    labeled = label_until_done(run, CARD_STAGES)
    for model in labeled.run.models:
        commit(model, labeled.fragments[model.name], 1.0)


def workers(faults: Path) -> list[str]:
    """List what the workers of a job saw: the index of their card, and their share of it."""
    return [path.read_text() for path in faults.glob("worker-*")]


def table(out: Path) -> pa.Table:
    labels = pq.read_table(out / layout.labels_folder("r")).sort_by(schema.ROW_ID)
    return labels.drop_columns([schema.LABELED_AT])


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Two models with other input sizes."""
    base = tmp_path_factory.mktemp("models")
    for name, size in (("one", 32), ("two", 48)):
        (base / name).mkdir()
        export_tiny(base / name, TINY_VOCABULARY, input_size=size, name=name)
    return str(base / "one"), str(base / "two")


@pytest.mark.slow
def test_hostile_corpus_with_two_models(models: tuple[str, str], tmp_path: Path) -> None:
    """On a card that says nothing of damaged data: statuses, messages, sizes and labels are those of the CPUs' decoder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = write_corpus(tmp_path / "corpus")
    job = quick_job(
        inputs=(str(tmp_path / "corpus"),), models=models, run_id="r", batch_size=BATCH, block_rows=16, annotate=20,
        decode="exact", out=str(tmp_path / "card"), workers=None,
    )  # fmt: skip
    (tmp_path / "card.faults").mkdir()
    label_on_faked_cards(job)
    label(job.model_copy(update={"out": str(tmp_path / "cpu")}))
    assert sorted(workers(tmp_path / "card.faults")) == ["0 1.0", "1 1.0"], "each has a card of its own"
    for name in ("one", "two"):
        actual = table(tmp_path / "card" / name)
        assert actual.equals(table(tmp_path / "cpu" / name))
        assert verify(Store(str(tmp_path / "card" / name))) == []
        annotated = [
            sorted(os.listdir(tmp_path / out / name / layout.annotated_folder("r"))) for out in ("card", "cpu")
        ]
        assert annotated[0] == annotated[1] != []
    statuses = {
        os.path.relpath(os.fsencode(path_of_uri(row["uri"])), os.fsencode(tmp_path / "corpus")): row["status"]
        for row in actual.select([schema.URI, schema.STATUS]).to_pylist()
    }
    assert statuses == {name: status for name, status in expected.items() if status is not None}


def test_full_and_lost_cards_cost_no_row(tiny_folder: Path, folder_of_images: Path, tmp_path: Path) -> None:
    """Two workers on half a card each, with room for three images: batches of eight are halved. One image costs a worker its card, until
    it is kept from the card.
    """
    faults = tmp_path / "out.faults"
    faults.mkdir()
    (faults / MEMORY).write_text("3")
    poison = tmp_path / "poison.jpg"
    poison.write_bytes(encode(picture(), comment=POISON))
    job = quick_job(
        inputs=(str(folder_of_images), str(poison)), out=str(tmp_path / "out"), model=str(tiny_folder), run_id="r",
        batch_size=BATCH, block_rows=16, rows_per_fragment=5, workers=2, workers_per_device=2,
    )  # fmt: skip
    label_on_faked_cards(job)
    assert exactly_once(job.out, "r", len(BAD_IN_FOLDER) + 26)
    assert verify(Store(job.out)) == []
    statuses = table(tmp_path / "out").column(schema.STATUS).to_pylist()
    assert sorted(statuses) == sorted(["ok"] * 26 + list(BAD_IN_FOLDER.values()))
    assert {seen.split()[1] for seen in workers(faults)} == {"0.5"}
    assert SUSPECT_LOSSES <= len(list(faults.glob("lost-*"))) < MAX_LOSSES, "so many processes ended"


def test_a_worker_says_why_its_card_does_not_decode() -> None:
    """The GPU is faked: nothing of NVIDIA's is there."""
    problem = try_on_worker(parse_device("gpu"))
    assert problem
    assert "\n" not in problem
