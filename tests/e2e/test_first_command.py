"""`scripts/label`, the README's first command, and what each reader makes of its table."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import duckdb
import pandas
import polars
import pytest
import ray.data

from mlcls_ray import schema
from mlcls_ray.table import layout
from tests.conftest import ROOT, run_cli
from tests.pages import code_blocks

SEEN_BY_A_PERSON = {
    "astronaut.jpg": "person", "grace-hopper.jpg": "person", "photographer.jpg": "person", "cat.jpg": "cat",
    "coffee.jpg": "cup", "boats.jpg": "boat", "sheep.jpg": "sheep",
}  # fmt: skip


@pytest.fixture(scope="module")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("demo")
    done = subprocess.run(
        [ROOT / "scripts" / "label"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=280,
        check=True,
        stdin=subprocess.DEVNULL,
    )
    assert "Traceback" not in done.stderr
    return folder / "mlcls-demo", done.stdout


def glob(out: Path) -> str:
    return str(out / f"{layout.RUNS}/*/labels/*.parquet")


def test_it_prints_labels_a_person_agrees_with(demo_run: tuple[Path, str]) -> None:
    lines = {line.split()[0]: line for line in demo_run[1].splitlines() if ".jpg" in line}
    assert len(lines) == 12
    assert all(label in lines[name] for name, label in SEEN_BY_A_PERSON.items())
    assert "12 images: 12 ok" in demo_run[1]
    assert "pandas.read_parquet" in demo_run[1]


def shape(line: str) -> str:
    """A line of output without what another model or another run changes: numbers, run ids, lists of labels."""
    name, separator, _ = line.partition(".jpg")
    if separator:
        return f"{name}.jpg"
    return re.sub(
        r"(top labels: |mlcls report ).*|\S*(?=/runs/)", r"\1", re.sub(r"\d{8}T\d{6}Z-[0-9a-f]{4}|[\d.]+", "0", line)
    ).rstrip()


def test_the_readme_shows_real_output(demo_run: tuple[Path, str]) -> None:
    (block,) = (block for block in code_blocks(ROOT / "README.md", "console") if ".jpg" in block)
    shown = [line for line in block.splitlines() if not line.startswith("$") and line != "…"]
    printed = {shape(line) for line in demo_run[1].splitlines()}
    assert [line for line in shown if shape(line) not in printed] == []
    for line in shown:
        name = line.split()[0]
        assert SEEN_BY_A_PERSON.get(name, "") in line
        if name.endswith(".jpg"):
            assert re.fullmatch(r"\S+\s+(no label above the threshold|[a-z ]+ 0\.\d\d(, [a-z ]+ 0\.\d\d)*)", line)


def test_the_layout_is_the_designs(demo_run: tuple[Path, str]) -> None:
    out = demo_run[0]
    latest = json.loads((out / "latest.json").read_text())
    run = out / "runs" / latest["run_id"]
    assert sorted(os.listdir(out)) == ["latest.json", "runs"]
    assert sorted(os.listdir(run)) == [
        "_SUCCESS",
        "annotated",
        "attempts",
        "labels",
        "lease",
        "manifest",
        "manifest.json",
        "progress.json",
        "run.json",
    ]
    assert len(os.listdir(run / "annotated")) == 12
    assert all(name.endswith(".parquet") for name in os.listdir(run / "labels"))
    assert run_cli("verify", out).stdout.startswith("ok: 1 run(s)")


def test_a_small_run_tries_no_engine(demo_run: tuple[Path, str]) -> None:
    (record,) = (demo_run[0] / "runs").glob("*/run.json")
    chosen = json.loads(record.read_text())["engine"]
    assert (chosen["engine"], chosen["precision"], chosen["trials"]) == ("openvino", "fp32", [])
    assert "too few" in chosen["reason"]


def test_the_line_that_is_printed_opens_the_table(demo_run: tuple[Path, str]) -> None:
    line = next(line for line in demo_run[1].splitlines() if line.startswith("open it:"))
    scope: dict[str, pandas.DataFrame] = {}
    folder = os.getcwd()
    os.chdir(demo_run[0].parent)
    try:
        exec(line.removeprefix("open it:").strip(), scope)
    finally:
        os.chdir(folder)
    assert list(scope["table"].columns) == schema.LABEL_TABLE.names


def test_duckdb_polars_pandas_and_ray_read_it(demo_run: tuple[Path, str], loopback_ray: None) -> None:
    path = glob(demo_run[0])
    assert duckdb.sql(f"SELECT count(*) FROM '{path}' WHERE list_contains(labels, 'person')").fetchall() == [(4,)]
    assert duckdb.sql(f"SELECT max(len(all_scores)), max(all_scores[1]) > 0.7 FROM '{path}'").fetchall() == [(80, True)]
    table = polars.read_parquet(path)
    assert table.filter(polars.col("labels").list.contains("person")).height == 4
    labels = next((demo_run[0] / "runs").glob("*/labels"))
    assert (pandas.read_parquet(labels)["status"] == "ok").all()
    assert ray.data.read_parquet(str(labels)).count() == 12
    assert sorted(ray.data.read_parquet(str(labels)).take(1)[0]) == sorted(schema.LABEL_TABLE.names)
