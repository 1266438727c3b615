"""Which row of a uri is the newest: that of the run that started last, whatever the clocks say; and of this output, not of a sibling."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlcls_ray import open_labels
from mlcls_ray.config import LabelJob, S3Options
from mlcls_ray.errors import UsageError
from mlcls_ray.job.check import check_job
from mlcls_ray.labels.thresholds import Thresholds
from mlcls_ray.storage.inputs.listing import InputEntry
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout
from mlcls_ray.table.compact import compact
from mlcls_ray.table.incremental import open_changes, open_failed
from mlcls_ray.table.prune import find_superseded, remove_runs
from mlcls_ray.table.records import check_clock, read_latest, read_record, read_success
from mlcls_ray.table.relabel import relabel
from mlcls_ray.table.verify import verify
from tests.conftest import picture
from tests.s3_servers import BUCKET
from tests.table.outputs import URIS, write_run

DAY = timedelta(days=1)


def shift_clock(out: Path, run_id: str, by: timedelta) -> None:
    """Make a run as a clock that was wrong would have made it."""
    run = out / "runs" / run_id
    for path in sorted((run / "labels").iterdir()):
        rows = pq.ParquetFile(path).read()
        place = rows.schema.get_field_index("labeled_at")
        times = pa.array([time + by for time in rows.column(place).to_pylist()], rows.schema.field(place).type)
        pq.write_table(rows.set_column(place, rows.schema.field(place), times), path)
    for path, name in (
        (run / "run.json", "created_at"),
        (run / "_SUCCESS", "committed_at"),
        (out / "latest.json", "committed_at"),
    ):
        content = json.loads(path.read_text("utf-8"))
        if content["run_id"] == run_id:
            content[name] = (datetime.fromisoformat(content[name].replace("Z", "+00:00")) + by).isoformat()
            path.write_text(json.dumps(content), "utf-8")


def runs_of_newest(out: Path) -> set[str]:
    return {run_id for (run_id,) in open_labels(str(out)).sql("SELECT run_id FROM labels").fetchall()}


def test_a_clock_that_was_ahead_once(tmp_path: Path) -> None:
    """The first run was three days ahead. The second one's rows are the newest, and the first one is what `prune` may remove."""
    store = Store(str(tmp_path))
    write_run(store, "ahead")
    shift_clock(tmp_path, "ahead", 3 * DAY)
    write_run(store, "right", seed=1)
    table = open_labels(str(tmp_path))
    assert runs_of_newest(tmp_path) == {"right"}
    assert table.newest.run_id == "right"
    assert [read_record(store, run).number for run in ("ahead", "right")] == [1, 2]  # type: ignore[union-attr]
    shift_clock(tmp_path, "ahead", -40 * DAY)
    assert find_superseded(store, 30 * DAY) == ["ahead"]
    shift_clock(tmp_path, "right", -60 * DAY)
    assert find_superseded(store, 30 * DAY) == ["ahead"], "the newest rows stay, however old they look"


def test_an_incremental_run_goes_by_the_newest_row(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    write_run(store, "ahead")
    shift_clock(tmp_path, "ahead", 3 * DAY)
    write_run(store, "right", seed=1)
    listing = [InputEntry(uri, 100, datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)) for uri in URIS]
    with open_changes(store, ("f", "p"), ["/images"], listing) as changes:
        assert list(changes.new()) == []
    with open_failed(store, []) as failed:
        assert list(failed) == []


def test_vanished_twice(tmp_path: Path) -> None:
    """An image vanishes while the clock is ahead, comes back, and vanishes again: each time it is recorded."""
    store = Store(str(tmp_path))
    write_run(store, "ahead")
    shift_clock(tmp_path, "ahead", 3 * DAY)
    write_run(store, "right", seed=1)
    times = open_labels(str(tmp_path)).all_rows().order("run_number, uri").project("uri, labeled_at").fetchall()
    recorded = pa.table(
        {"uri": [times[0][0]], "last_labeled_at": pa.array([times[0][1]], pa.timestamp("us", tz="UTC"))}
    )
    pq.write_table(recorded, tmp_path / layout.vanished("ahead"))
    with open_changes(store, ("f", "p"), ["/images"], [InputEntry(uri) for uri in URIS[1:]]) as changes:
        assert changes.vanished()["uri"].to_pylist() == [URIS[0]]


@pytest.mark.parametrize("ahead", [timedelta(minutes=4), timedelta(minutes=6)])
def test_nothing_starts_before_the_newest_run(tmp_path: Path, tiny_folder: Path, ahead: timedelta) -> None:
    store = Store(str(tmp_path / "out"))
    image = tmp_path / "a.jpg"
    picture().save(image)
    write_run(store, "newest")
    shift_clock(tmp_path / "out", "newest", ahead)
    job = LabelJob(inputs=(str(image),), out=store.root, model=str(tiny_folder))
    if ahead < timedelta(minutes=5):  # two machines' clocks differ
        check_job(job)
        return
    for start in (
        lambda: check_job(job),
        lambda: relabel(store, Thresholds(default=0.2)),
        lambda: find_superseded(store, DAY),
        lambda: check_clock(store),
    ):
        with pytest.raises(UsageError, match=r"run 'newest' in .* was committed at .*: correct this machine's clock"):
            start()
    check_clock(store, datetime.now(timezone.utc) + DAY)
    compact(store, "newest", rows=2)
    check_job(job)
    assert read_success(store, "newest").committed_at == read_latest(store).committed_at  # type: ignore[union-attr]


def test_numbers_come_before_older_runs(tmp_path: Path) -> None:
    """Runs of version 0.1 have no numbers: they are older than all that have, and among them the clock decides."""
    store = Store(str(tmp_path))
    write_run(store, "b", number=0)
    write_run(store, "a", number=0, seed=1)
    assert runs_of_newest(tmp_path) == {"a"}
    shift_clock(tmp_path, "b", DAY)
    assert runs_of_newest(tmp_path) == {"b"}
    write_run(store, "0", seed=2)
    assert runs_of_newest(tmp_path) == {"0"}


def test_latest_json_never_names_a_run_that_was_removed(tmp_path: Path) -> None:
    """A run that started first and was committed last: the one that started later has the newer rows."""
    store = Store(str(tmp_path))
    write_run(store, "later", number=2)
    write_run(store, "first", number=1)
    assert read_latest(store).run_id == "first"  # type: ignore[union-attr]
    assert find_superseded(store, timedelta(0)) == ["first"]
    remove_runs(store, ["first"])
    assert read_latest(store).run_id == "later"  # type: ignore[union-attr]
    assert verify(store) == []


@pytest.mark.parametrize(
    ("name", "sibling"),
    [("photos[1]", "photos1"), ("a*b", "axxb"), ("a?b", "axb"), ("a[!b]", "ac"), ("o'[x]", "o'x"), ("b\\c", "bc")],
)
def test_rows_of_this_output_only(tmp_path: Path, name: str, sibling: str) -> None:
    """A folder's name is no pattern that also matches the folder beside it, with a run of the same id."""
    ours, theirs = Store(str(tmp_path / name)), Store(str(tmp_path / sibling))
    write_run(theirs, "run", [f"/theirs/{number}.jpg" for number in range(4)])
    write_run(ours, "run", [f"/ours/{number}.jpg" for number in range(3)])
    table = open_labels(ours.root)
    assert {uri.split("/")[1] for (uri,) in table.sql("SELECT uri FROM all_rows").fetchall()} == {"ours"}
    with open_changes(
        ours, ("f", "p"), ["/images"], [InputEntry("/ours/0.jpg"), InputEntry("/theirs/0.jpg")]
    ) as changes:
        assert [entry.uri for entry in changes.new()] == ["/theirs/0.jpg"]
        assert changes.vanished()["uri"].to_pylist() == ["/ours/1.jpg", "/ours/2.jpg"]
    with open_failed(ours, []) as failed:
        assert list(failed) == []
    assert relabel(ours, Thresholds(default=0.2), run_id="again").rows == 3
    compact(ours, "run")
    remove_runs(ours, ["run"])
    assert verify(ours) == verify(theirs) == []
    assert len(open_labels(theirs.root).all_rows()) == 4


@pytest.mark.slow
def test_rows_of_this_output_only_in_a_bucket(moto: str) -> None:
    place, s3 = f"s3://{BUCKET}/{uuid4().hex}", S3Options(endpoint_url=moto)
    ours, theirs = Store(f"{place}/photos[1]", s3), Store(f"{place}/photos1", s3)
    write_run(theirs, "run", [f"/theirs/{number}.jpg" for number in range(4)])
    write_run(ours, "run", [f"/ours/{number}.jpg" for number in range(3)])
    assert {uri.split("/")[1] for (uri,) in open_labels(ours.root, s3).sql("SELECT uri FROM all_rows").fetchall()} == {
        "ours"
    }
    compact(ours, "run")
    write_run(ours, "again", [f"/ours/{number}.jpg" for number in range(3)], seed=1)
    remove_runs(ours, find_superseded(ours, timedelta(0)))
    assert ours.names(layout.RUNS) == ["again"]
    assert verify(ours) == verify(theirs) == []
    assert len(open_labels(theirs.root, s3).all_rows()) == 4
