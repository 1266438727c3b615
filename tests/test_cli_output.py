"""Standard output of the commands that print data: a file that holds something already, a pipe that is closed, a full disk, none at all."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pytest

from mlcls_ray.storage.store import Store
from tests.conftest import ROOT, run_cli
from tests.table.outputs import URIS, write_run

SQL = "SELECT uri, labels, status, len(scores) AS count, error_message FROM labels ORDER BY uri"
ODD = '/images/a "quoted", name\nof two lines 猫.jpg'


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("printed") / "out"
    store = Store(str(folder))
    write_run(store, "one", [*URIS[:3], ODD, *URIS[3:]])
    write_run(store, "two", seed=1)
    return folder


def commands(out: Path, folder: Path) -> dict[str, list[str]]:
    """Every command that prints data of an output, and some others; those that write do so in `folder`."""
    here = str(out)
    return {
        "query": ["query", here, SQL],
        "query csv": ["query", here, SQL, "--format", "csv"],
        "query json": ["query", here, SQL, "--format", "json"],
        "search": ["search", here, "--label", "cat"],
        "diff": ["diff", f"{here}/runs/one", f"{here}/runs/two"],
        "drift": ["drift", here],
        "status": ["status", here],
        "status json": ["status", here, "--json"],
        "verify": ["verify", here],
        "gc": ["gc", here, "--dry-run"],
        "prune": ["prune", here, "--keep", "1h", "--dry-run"],
        "export-labels": ["export-labels", here, "--format", "csv", "--save", str(folder / "labels.csv")],
        "tag": ["tag", here, "--write", "csv", "--save", str(folder / "tags.csv")],
        "report": ["report", here, "--save", str(folder / "report.html"), "--thumbnails", "0"],
        "models": ["models"],
        "help": ["--help"],
        "version": ["--version"],
        "dataset help": ["dataset", "--help"],
    }


def some(words: dict[str, list[str]]) -> dict[str, list[str]]:
    """One command for each way of printing."""
    return {name: words[name] for name in ("query", "query csv", "search", "status", "help")}


RunAll = Callable[[Sequence[dict[str, Any]]], tuple[list[int], str]]


@pytest.fixture(scope="module")
def forks() -> Iterator[subprocess.Popen[str]]:
    """A Python that has loaded the commands, and forks for each."""
    words = [sys.executable, "-m", "tests.cli_forks"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        yield process


@pytest.fixture
def run_all(forks: subprocess.Popen[str], tmp_path: Path) -> RunAll:
    """Run jobs; returns their exit codes, and what they wrote to standard error."""
    stderr = tmp_path / "stderr"
    assert forks.stdin and forks.stdout

    def run(jobs: Sequence[dict[str, Any]]) -> tuple[list[int], str]:
        codes = []
        for job in jobs:
            print(json.dumps({**job, "stderr": str(stderr)}), file=forks.stdin, flush=True)
            codes.append(int(forks.stdout.readline()))
        return codes, stderr.read_text("utf-8")

    return run


def test_output_is_added_to_a_file(run_all: RunAll, out: Path, tmp_path: Path) -> None:
    """`mlcls … >> log`: what the log holds stays. The log's locale is ASCII."""
    words = commands(out, tmp_path)
    jobs = [{"words": line, "stdout": "file", "path": str(tmp_path / f"{name}.log")} for name, line in words.items()]
    for job in jobs:
        Path(job["path"]).write_text("earlier\n", encoding="utf-8")
    codes, errors = run_all(jobs)
    assert codes == [0] * len(jobs), errors
    for job in jobs:
        text = Path(job["path"]).read_text("utf-8")
        assert text.startswith("earlier\n")
        assert len(text) > 12, job["words"]
    rows = list(csv.reader(io.StringIO((tmp_path / "query csv.log").read_text("utf-8").partition("\n")[2])))
    assert rows[0] == ["uri", "labels", "status", "count", "error_message"]
    assert [row[0] for row in rows[1:]] == sorted([*URIS, ODD])
    assert next(row for row in rows if row[0] == URIS[-1])[1:] == ["", "missing", "", "gone"]
    objects = [json.loads(line) for line in (tmp_path / "query json.log").read_text("utf-8").splitlines()[1:]]
    assert [row["uri"] for row in objects] == sorted([*URIS, ODD])
    assert objects[0]["labels"] == json.loads(rows[1][1].replace("[", '["').replace("]", '"]').replace(", ", '", "'))
    assert json.loads((tmp_path / "status json.log").read_text("utf-8").splitlines()[1])["rows"] == 7


def test_a_closed_pipe_ends_quietly(run_all: RunAll, out: Path, tmp_path: Path) -> None:
    """`mlcls … | head -0`: no message, no traceback, exit code 0."""
    words = commands(out, tmp_path)
    codes, errors = run_all([{"words": line, "stdout": "closed"} for line in words.values()])
    assert dict(zip(words, codes, strict=True)) == dict.fromkeys(words, 0)
    assert {line for line in errors.splitlines() if not line.endswith("image(s)")} == set()


def test_no_standard_output(run_all: RunAll, out: Path, tmp_path: Path) -> None:
    """`mlcls … >&-`, as daemons start programs."""
    words = some(commands(out, tmp_path))
    codes, errors = run_all([{"words": line, "stdout": "none"} for line in words.values()])
    assert dict(zip(words, codes, strict=True)) == dict.fromkeys(words, 0), errors
    assert "Traceback" not in errors


def test_a_full_disk_is_said(run_all: RunAll, out: Path, tmp_path: Path) -> None:
    words = some(commands(out, tmp_path))
    codes, errors = run_all([{"words": line, "stdout": "full"} for line in words.values()])
    assert dict(zip(words, codes, strict=True)) == dict.fromkeys(words, 1)
    assert errors.count("No space left on device") == len(words)
    assert "Traceback" not in errors


def test_between_others(out: Path, tmp_path: Path) -> None:
    """`(a; query; b) > file`, and a real `| head`."""
    mlcls = f"{sys.executable} -m mlcls_ray.cli"
    file = tmp_path / "file"
    query = f"{mlcls} query {out} 'SELECT count(*) AS rows FROM labels' --format csv"
    subprocess.run(f"(echo first; {query}; echo last) > {file}", shell=True, check=True, cwd=ROOT)
    assert file.read_text().split() == ["first", "rows", "7", "last"]
    query = f"{mlcls} query {out} 'SELECT range AS n FROM range(300000)' --format csv"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {query} | head -2"], capture_output=True, text=True, cwd=ROOT
    )
    assert (done.stdout, done.stderr, done.returncode) == ("n\n0\n", "", 0)


@pytest.mark.parametrize("format", ["csv", "json", "parquet", "table"])
def test_save_writes_whole_files(out: Path, tmp_path: Path, format: str) -> None:
    target = tmp_path / "new folder" / f"o'clock.{format}"
    run_cli("query", out, SQL, "--format", format, "--save", target)
    assert list(target.parent.iterdir()) == [target]
    if format == "parquet":
        assert len(duckdb.sql(f"FROM read_parquet('{str(target).replace(chr(39), chr(39) * 2)}')").fetchall()) == 7


def test_a_query_that_fails_leaves_no_file(out: Path, tmp_path: Path) -> None:
    target = tmp_path / "rows.csv"
    done = run_cli("query", out, "SELECT error('at the end') FROM labels", "--format", "csv", "--save", target, check=2)
    assert "at the end" in done.stderr
    assert list(tmp_path.iterdir()) == []
    assert run_cli("query", out, "SELECT 1 WHERE", "--format", "csv", check=2).stdout == ""
