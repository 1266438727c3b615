"""Several outputs in one view: the union of their labels, what each of them says, and errors."""

from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np
import pytest

from mlcls_ray import open_labels
from mlcls_ray.config import S3Options
from mlcls_ray.errors import UsageError
from mlcls_ray.storage.store import Store
from mlcls_ray.table.corrections import Change, Verdict, as_rows, new_action, write_action
from mlcls_ray.table.merged import source_names
from tests.conftest import run_cli
from tests.explore.browse.many import write_run
from tests.s3_servers import BUCKET

THINGS, ANIMALS = ("boat", "car", "dog"), ("dog", "otter")


def uris(*numbers: int) -> list[str]:
    return [f"/photos/{number}.jpg" for number in numbers]


@pytest.fixture
def outs(tmp_path: Path) -> list[str]:
    things, animals = str(tmp_path / "things"), str(tmp_path / "my animals")
    write_run(
        things, "one", uris(0, 1, 2), classes=THINGS, scores=np.float32([[0.9, 0.1, 0.6], [0.1, 0.7, 0.1], [0, 0, 0]])
    )
    write_run(animals, "one", uris(0, 1, 3), classes=ANIMALS, scores=np.float32([[0.8, 0.55], [0.1, 0.2], [0.6, 0.6]]))
    return [things, animals]


def test_one_row_per_uri_with_the_labels_of_all(outs: list[str]) -> None:
    table = open_labels(outs)
    rows = table.sql("SELECT uri, status, labels, scores, sources FROM labels ORDER BY uri").fetchall()
    assert [row[0] for row in rows] == uris(0, 1, 2, 3)
    assert {row[1] for row in rows} == {"ok"}
    assert [row[2] for row in rows] == [["boat", "dog", "otter"], ["car"], [], ["dog", "otter"]]
    assert rows[0][3] == pytest.approx([0.9, 0.8, 0.55])
    assert rows[0][4] == ["things", "my animals", "my animals"], "the source with the greatest score"
    assert table.arrow().num_rows == len(table.pandas()) == 4
    assert repr(table).startswith("MergedTable(LabelTable(")


def test_each_source_stays_reachable(outs: list[str]) -> None:
    table = open_labels(outs)
    rows = table.sql(
        "SELECT by_source['things'].labels, by_source['my animals'].labels, by_source['my animals'].status FROM labels ORDER BY uri"
    ).fetchall()
    assert rows[0] == (["boat", "dog"], ["dog", "otter"], "ok")
    assert rows[2] == ([], None, None), "not in that output"
    assert table.sql('SELECT count(*) FROM "my animals".labels').fetchall() == [(3,)]
    assert set(table.sources) == {"things", "my animals"}
    assert table.sources["things"].sql("SELECT count(*) FROM scores").fetchall() == [(9,)]
    both = "SELECT source, model, count(*) FROM scores GROUP BY ALL ORDER BY 3 DESC"
    assert table.sql(both).fetchall() == [("things", "m", 9), ("my animals", "m", 6)]
    for view, count in (("source_labels", 6), ("all_rows", 6), ("thresholds", 5)):
        assert table.sql(f"SELECT count(*), count(DISTINCT source) FROM {view}").fetchall() == [(count, 2)]


def test_the_first_source_that_could_read_an_image_says_what_it_is(outs: list[str], tmp_path: Path) -> None:
    other = str(tmp_path / "other")
    listed = [f"/photos/{number}.jpg" for number in range(1000, 1999)] + uris(0)
    write_run(other, "one", listed, classes=ANIMALS)  # the last one is missing
    query = "SELECT status, error_message, labels, by_source['other'].status FROM labels WHERE uri = '/photos/0.jpg'"
    assert open_labels([other, outs[0]]).sql(query).fetchall() == [("ok", None, ["boat", "dog"], "missing")]
    alone = open_labels([other]).sql(query).fetchall()
    assert alone == [("missing", None, None, "missing")]


def test_corrections_count_for_the_labels_of_their_own_output(outs: list[str]) -> None:
    action = new_action(1, "eva")
    change = Change("/photos/0.jpg", "of /photos/0.jpg", "one", Verdict.LABELED, ["boat", "dog"], ["boat", "raft"])
    write_action(Store(outs[0]), action, as_rows(action, [change]))
    query = "SELECT labels, scores FROM labels WHERE uri = '/photos/0.jpg'"
    assert open_labels(outs).sql(query).fetchall()[0][0] == ["boat", "dog", "otter"]
    ((labels, scores),) = open_labels(outs, corrected=True).sql(query).fetchall()
    assert labels == ["boat", "dog", "otter", "raft"]
    assert scores[:3] == pytest.approx([0.9, 0.8, 0.55])
    assert scores[3] is None, "the model does not know it"


def test_local_and_s3_together(outs: list[str], s3_slowly: str) -> None:
    s3 = S3Options(endpoint_url=s3_slowly)
    write_run(
        f"s3://{BUCKET}/merged/things",
        "one",
        uris(0, 9),
        classes=THINGS,
        scores=np.float32([[0, 0.95, 0], [0, 0, 0.9]]),
        s3=s3,
    )
    table = open_labels([outs[0], f"s3://{BUCKET}/merged/things"], s3)
    assert list(table.sources) == [f"{Path(outs[0]).parent.name}/things", "merged/things"]
    rows = table.sql("SELECT labels FROM labels ORDER BY uri").fetchall()
    assert rows == [(["car", "boat", "dog"],), (["car"],), ([],), (["dog"],)]


def test_what_is_refused(outs: list[str], tmp_path: Path) -> None:
    for given, message in (
        ([], "give at least one output"),
        ([outs[0], f"{outs[0]}/../things/"], "are one output: give each output once"),
        ([outs[0], str(tmp_path / "nothing")], "nothing' holds no committed run"),
        ([str(tmp_path), outs[0]], "holds no committed run: did you mean '.*my animals' or '.*things'"),
    ):
        with pytest.raises(UsageError, match=message):
            open_labels(given)
    with pytest.raises(UsageError, match="run_id: 'one' is a run of one output, and 2 are given"):
        open_labels(outs, run_id="one")


def test_names_of_sources() -> None:
    assert source_names(["/a/x", "s3://bucket/y/"]) == ["x", "y"]
    assert source_names(["/a/x", "/b/x"]) == ["a/x", "b/x"]
    assert source_names(["/a/x", "/b/X"]) == ["a/x", "b/X"], "DuckDB's schemas differ in more than case"
    assert source_names(["/a/main", "/a/y"]) == ["a/main", "a/y"]
    assert source_names(["/a", "/A"]) == ["1:/a", "2:/A"]


def test_the_commands(outs: list[str]) -> None:
    query = "SELECT count(*) AS images FROM labels"
    assert run_cli("query", outs[0], query, "--with", outs[1], "--format", "csv").stdout == "images\n4\n"
    found = run_cli("search", outs[0], "--label", "boat", "--label", "otter", "--with", outs[1]).stdout
    assert found == "0.550\t/photos/0.jpg\n"
    refused = run_cli("search", outs[0], "--like", "/photos/0.jpg", "--with", outs[1], check=2).stderr
    assert "leave --with out" in refused


def test_labels_are_read_only_when_they_are_asked_for(outs: list[str]) -> None:
    """What a query does not name is not read: neither the scores of all classes nor the columns of one source."""
    plan = open_labels(outs).sql("EXPLAIN SELECT uri, labels FROM labels").fetchall()[0][1]
    assert "all_scores" not in plan
    assert "model" not in plan
    with pytest.raises(duckdb.BinderException):
        open_labels(outs).sql("SELECT class_ids FROM labels").fetchall()
