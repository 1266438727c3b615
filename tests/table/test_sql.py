"""Every query of the package is bound against the schema, and run over an empty table and over a small one."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

import mlcls_ray.datasets
import mlcls_ray.explore
import mlcls_ray.table
from mlcls_ray import schema
from mlcls_ray.job.duplicates import HASHES
from mlcls_ray.storage.inputs.listing import InputEntry
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout
from mlcls_ray.table.corrected import correct_labels
from mlcls_ray.table.drift.counts import create_compared
from mlcls_ray.table.drift.runs import choose_runs
from mlcls_ray.table.incremental import open_changes
from mlcls_ray.table.records import read_record
from mlcls_ray.table.tags.record import create_tagged_view
from mlcls_ray.table.views import committed_files, create_label_views, create_score_view, create_view, query_rows
from tests.conftest import ROOT

OUTPUT = ROOT / "tests/fixtures/output_before_redesign/out"
VALUES = {
    "bins": 20,
    "count": 3,
    "embedding": [0.5, 0.5],
    "labels": ["dog", "person"],
    "limit": 5,
    "min_score": 0.1,
    "unlabeled": False,
    "model": "m",
    "per_status": 2,
    "preprocess": "p",
    "run": "first",
    "step_before": 1,
    "step_now": 2,
    "kind": "xmp",
    "runs": ["first"],
    "statuses": ["ok", "not_an_image"],
    "thresholds": [0.5, 0.5, 0.5, 0.5],
    "transient": ["timeout"],
    "uri": "/a.jpg",
    "uris": ["/a.jpg"],
    "vocabulary": ["boat", "cat", "dog", "person"],
    "width": 1.5,
    "without": ["boat"],
}


def constants() -> dict[str, str]:
    """The SQL texts at the top level of modules, by `module.NAME`; of those that create, only what may run twice."""
    modules = ["mlcls_ray.job.duplicates"]
    for package in (mlcls_ray.table, mlcls_ray.explore, mlcls_ray.datasets):
        modules += [info.name for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
    modules = [
        name for name in modules if ".browse" not in name
    ]  # over an index: tests/explore/browse runs each of them
    return {
        f"{module}.{name}": value
        for module in modules
        for name, value in vars(importlib.import_module(module)).items()
        if name.isupper() and isinstance(value, str) and re.match(r"\s*(SELECT|CREATE OR REPLACE)\s", value)
    }


@pytest.fixture(scope="module", params=["empty", "small"])
def database(request: pytest.FixtureRequest) -> Iterator[duckdb.DuckDBPyConnection]:
    """All views and tables that any query names."""
    store = Store(str(OUTPUT if request.param == "small" else OUTPUT / "nothing"))
    records = {} if request.param == "empty" else {name: read_record(store, name) for name in ("first", "second")}
    inputs = [InputEntry(f"/{number}.jpg") for number in range(3)] if records else []
    with open_changes(store, ("m", "p"), [], inputs) as changes:
        database = changes.database
        create_score_view(database, {name: record for name, record in records.items() if record})
        files = store.data_uris(layout.manifest_folder("first"))
        create_view(database, "manifest", files, schema.MANIFEST)
        create_view(database, "labeled", store.data_uris(layout.labels_folder("first")))
        create_view(database, "all_rows_after", committed_files(store))
        create_view(database, "hashes", [], HASHES)
        create_view(database, "copies", [], schema.DUPLICATES)
        database.table("labels").create_view("sampled")
        database.execute(
            "CREATE OR REPLACE VIEW labels AS SELECT *, [0.5, 0.5]::FLOAT[] AS embedding FROM newest('all_rows')"
        )
        if records:
            create_compared(database, choose_runs(store))
        else:
            database.execute(
                "CREATE TABLE cuts (run_id VARCHAR, thresholds FLOAT[]); CREATE TABLE this_run (run_id VARCHAR)"
            )
            database.execute(constants()["mlcls_ray.table.drift.counts.COMPARED"])
        correct_labels(database, schema.CORRECTIONS.empty_table())
        create_tagged_view(database, store)
        database.execute(constants()["mlcls_ray.explore.diff.JOINED"])
        database.execute(constants()["mlcls_ray.datasets.sample.LOGIT"])
        yield database


@pytest.mark.parametrize("name", constants())
def test_each_query_runs(database: duckdb.DuckDBPyConnection, name: str) -> None:
    query = constants()[name]
    database.execute(query, {key: VALUES[key] for key in set(re.findall(r"\$(\w+)", query))})


def test_queries_are_found() -> None:
    assert {name.split(".")[1] for name in constants()} == {"table", "explore", "datasets", "job"}
    assert len(constants()) > 15


def test_the_newest_row_is_the_same_one_whatever_the_order_of_files(tmp_path: Path) -> None:
    """A uri that is listed twice gets two rows with the same time: the greater row id counts."""
    import pyarrow.parquet as pq

    (name,) = (OUTPUT / layout.labels_folder("first")).iterdir()
    rows = pq.read_table(name).slice(0, 2)
    twice = rows.set_column(1, "uri", [["/twice.jpg"] * 2]).set_column(
        rows.schema.get_field_index("labeled_at"), "labeled_at", [[rows["labeled_at"][0]] * 2]
    )
    for number in range(2):
        pq.write_table(twice.slice(number, 1), tmp_path / f"{number}.parquet")
    files = [str(tmp_path / f"{number}.parquet") for number in range(2)]
    for ordered in (files, files[::-1]):
        with duckdb.connect() as database:
            create_label_views(database, ordered)
            assert query_rows(database, "SELECT uri, row_id FROM labels", {}) == [{"uri": "/twice.jpg", "row_id": 1}]
