"""The label table is plain Parquet: other programs read all runs at once, whatever failed and whichever run has embeddings."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlcls_ray import open_labels, schema
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout
from tests.conftest import ROOT
from tests.table import readers
from tests.table.outputs import write_run

INSTALLED = ["pyarrow", "pandas", "polars", "duckdb"]
FLOOR = re.search(r'"pyarrow>=([\d.]+)', (ROOT / "pyproject.toml").read_text("utf-8"))
ELSEWHERE = {
    "pyarrow": ["pyarrow=={floor}", "pyarrow"],
    "pandas": ["pyarrow=={floor}"],
    "fastparquet": ["fastparquet"],
    "datafusion": ["datafusion"],
    "daft": ["daft"],
    "spark": ["pyspark"],
}
"""Readers that are not installed with this package, or in another version: what pip installs for them, in the slow tier."""


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs: with embeddings, without, and with the best score only. One row of each has failed."""
    folder = tmp_path_factory.mktemp("readers")
    store = Store(str(folder))
    write_run(store, "embedded", embeddings=True)
    write_run(store, "plain", seed=1)
    write_run(store, "best", seed=2, top_k=1)
    return folder


@pytest.fixture(scope="module")
def expected(out: Path) -> list[list[Any]]:
    rows = pa.concat_tables([pq.ParquetFile(file).read() for file in readers.files(str(out))]).to_pylist()
    table = [[readers.plain(row[name]) for name in readers.COLUMNS] for row in rows]
    return sorted(table, key=lambda row: (row[2], row[0]))


def test_what_is_expected(expected: list[list[Any]]) -> None:
    best, embedded, plain = (dict(zip(readers.COLUMNS, expected[number], strict=True)) for number in (0, 6, 12))
    assert len(expected) == 18
    assert [len(row["all_scores"]) for row in (best, embedded, plain)] == [3, 3, 3]
    assert best["all_scores"].count(None) == 2
    assert (best["embedding"], len(embedded["embedding"]), plain["embedding"]) == (None, 4, None)
    assert expected[5][1:2] + expected[5][4:] == ["missing", None, None, None, None]
    assert [row["run_number"] for row in (embedded, plain, best)] == [1, 2, 3]


@pytest.mark.parametrize("reader", INSTALLED)
def test_reads_all_runs(reader: str, out: Path, expected: list[list[Any]]) -> None:
    assert readers.read(reader, str(out)) == expected


def packages(reader: str, requirement: str, folder: Path) -> dict[str, str]:
    """The environment of a Python that finds the reader's packages first."""
    floor = FLOOR[1] if FLOOR else ""
    if requirement == "pyspark" and shutil.which("java") is None:
        pytest.skip("needs a Java runtime: apt-get install default-jre-headless")
    command = [sys.executable, "-m", "pip", "install", "-q", "--target", str(folder), requirement.format(floor=floor)]
    installed = subprocess.run(command, capture_output=True, text=True)
    if installed.returncode != 0:
        pytest.skip(f"needs packages that cannot be installed here: {installed.stderr.strip()[-200:]}")
    return {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("reader", "requirement"), [(reader, text) for reader, texts in ELSEWHERE.items() for text in texts]
)
def test_read_by_others(reader: str, requirement: str, out: Path, expected: list[list[Any]], tmp_path: Path) -> None:
    environment = packages(reader, requirement, tmp_path / "packages")
    command = [sys.executable, str(Path(readers.__file__)), reader, str(out)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == expected


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_upkeep_with_the_oldest_arrow(out: Path, tmp_path: Path) -> None:
    """`compact`, `relabel`, `verify` and the first layout's rows work with the oldest version of pyarrow that is declared."""
    environment = packages("pyarrow", "pyarrow=={floor}", tmp_path / "packages")
    copies = {"today": out, "before": ROOT / "tests/fixtures/output_before_redesign/out"}
    for name, source in copies.items():
        folder = shutil.copytree(source, tmp_path / name)
        words = {
            "relabel": ["--threshold", "0.4"] if name == "before" else ["--threshold", "0.4", "--from", "plain"],
            "compact": [],
            "verify": [],
            "query": ["SELECT count(*) FROM scores"],
        }
        for command, rest in words.items():
            done = subprocess.run(
                [sys.executable, "-m", "mlcls_ray.cli", command, str(folder), *rest],
                env=environment, capture_output=True, text=True,
            )  # fmt: skip
            assert done.returncode == 0, done.stdout + done.stderr


def test_size_is_that_of_float16(tmp_path: Path) -> None:
    """Against the first layout, whose lists were float16 of a fixed size: at most 1.3 times the bytes, for 80 classes."""
    import numpy as np

    from mlcls_ray.table.ledger import write_fragment

    random = np.random.default_rng(0)
    scores = (1 / (1 + np.exp(-random.normal(-4, 2, (20_000, 80))))).astype(np.float32)
    is_ok = np.ones(len(scores), bool)
    store = Store(str(tmp_path))
    flat = pa.array(scores.astype(np.float16).ravel())
    sizes = []
    for name, column in (
        ("a.parquet", schema.encode_scores(scores, is_ok)),
        ("b.parquet", pa.FixedSizeListArray.from_arrays(flat, 80)),
    ):
        write_fragment(store, "r", name, pa.table({"status": pa.array(["ok"] * len(scores)), "all_scores": column}))
        sizes.append((tmp_path / layout.labels_folder("r") / name).stat().st_size)
    assert sizes[0] <= 1.3 * sizes[1]


def test_the_first_layout_beside_todays(out: Path, tmp_path: Path) -> None:
    """Runs of both layouts in one output: `open_labels` reads them together, and the numbered ones are newer."""
    folder = Path(shutil.copytree(ROOT / "tests/fixtures/output_before_redesign/out", tmp_path / "out"))
    before = open_labels(str(folder))
    uris = sorted(uri for (uri,) in before.sql("SELECT uri FROM labels").fetchall())
    assert {"embedding", "run_number"} <= set(before.duckdb().columns)
    write_run(Store(str(folder)), "today", uris)
    table = open_labels(str(folder))
    assert len(table.all_rows()) == 7 + len(uris)
    assert {row[0] for row in table.sql("SELECT run_id FROM labels").fetchall()} == {"today"}
    assert table.newest.run_id == "today"
