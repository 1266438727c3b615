"""The summary of a run: names, messages and paths as they are."""

from __future__ import annotations

import io
import json
import shlex
from datetime import datetime, timezone
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mlcls_ray.cli.summary import print_summary
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout
from mlcls_ray.table.ledger import Fragment
from mlcls_ray.table.records import InputChanges, Success, read_success
from mlcls_ray.terminal import make_console, plain
from tests.table.outputs import begin_run, write_run

ROWS = [
    {"uri": "s3://b/[x].jpg", "status": "ok", "error_message": "", "labels": ["[red]cat", ":dog:"], "scores": [0.9, 0.5]},
    {"uri": "s3://b/clear\x1b[2J.jpg", "status": "not_an_image", "error_message": "starts with b'[/foo]'", "labels": None, "scores": None},
    {"uri": "s3://b/turned\u202e\n.jpg", "status": "ok", "error_message": "", "labels": [], "scores": []},
]  # fmt: skip


def test_the_summary_shows_text_as_it_is(tmp_path: Path) -> None:
    out = tmp_path / "out [b] 'it' \"is\" :cat:"
    store = Store(str(out))
    folder = out / layout.labels_folder("r")
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "a.parquet")
    fragment = Fragment(name="a.parquet", rows=3, sha256="0", statuses={"ok": 2, "not_an_image": 1})
    now = datetime.now(timezone.utc)
    success = Success(
        run_id="r", rows=3, statuses=fragment.statuses, fragments=[fragment], seconds=1.0, committed_at=now
    )
    console = make_console()
    console.file, console.width = io.StringIO(), 300
    print_summary(store, success, console, annotated=True)
    text = console.file.getvalue()
    for expected in (
        "[x].jpg",
        "[red]cat 0.90",
        ":dog: 0.50",
        "starts with b'[/foo]'",
        plain("clear\x1b[2J.jpg"),
        plain("turned\u202e\n.jpg"),
    ):
        assert expected in text
    assert f"label table: {folder}" in text
    assert plain(f"look at it:  mlcls report {shlex.quote(str(out))}") in text
    assert f"pandas.read_parquet({json.dumps(str(folder))})" in text
    assert "no label above the threshold" in text
    assert not [control for control in ("\x1b", "\u202e") if control in text]


def summary_of(store: Store, success: Success, **options: bool) -> str:
    console = make_console()
    console.file, console.width = io.StringIO(), 80
    print_summary(store, success, console, annotated=False, **options)
    return console.file.getvalue()


def test_failures_and_what_was_left_out_are_named(tmp_path: Path) -> None:
    """Of 40 images eight are gone: the first five by name, and the query for the others. A file per five rows: the last of each is gone."""
    store = Store(str(tmp_path / "out"))
    fragments = []
    for run in range(8):
        write_run(store, "r", [f"/photos/{run}-{number}.jpg" for number in range(5)], fragment_rows=5)
        fragment = read_fragments(store)[0]
        name = f"part-0001-{run:06d}.parquet"
        store.write(
            f"{layout.labels_folder('all')}/{name}", store.read(f"{layout.labels_folder('r')}/{fragment.name}") or b""
        )
        fragments.append(Fragment(name=name, rows=5, sha256="0", statuses={"ok": 4, "missing": 1}))
    record = begin_run(store, "all")
    changes = InputChanges(listed=60, new=37, changed=2, retried=1, vanished=4)
    record = record.model_copy(update={"left_out": {".txt": 3, ".heic": 2}, "changes": changes})
    store.write_json(layout.run_json("all"), record.model_dump(mode="json"))
    success = Success(
        run_id="all", rows=40, statuses={"ok": 32, "missing": 8}, fragments=fragments, seconds=4.0, labeled=20,
        stage_seconds={"fetch": 1.0, "score": 3.0}, committed_at=datetime.now(timezone.utc),
    )  # fmt: skip
    text = summary_of(store, success)
    lines = text.splitlines()
    assert (
        lines[0]
        == "40 images: 32 ok, 8 missing; 20 of them in 4.0 s (5.0 images/s, including the start of the workers), 20 before"
    )
    assert "60 listed: 37 new, 2 changed, 1 retried, 4 vanished" in lines
    assert "left out by their names, not read: 2 .heic, 3 .txt" in lines
    assert [line for line in lines if "missing: gone" in line] == [
        f"  /photos/{run}-4.jpg: missing: gone" for run in range(5)
    ]
    query = f"mlcls query {tmp_path}/out \"SELECT uri, status, error_message FROM labels WHERE status <> 'ok'\""
    assert f"  and 3 more: {query}" in lines
    assert "where the time went: scoring 75 %, fetching 25 %" in lines
    assert lines[-1] == f"look at it:  mlcls report {tmp_path}/out"
    before = summary_of(store, success, is_new=False, is_for_log=True)
    assert before.startswith("run 'all' was committed before, ")
    assert "40 images: 32 ok, 8 missing\n" in before
    assert "pandas" not in before


def read_fragments(store: Store) -> list[Fragment]:
    success = read_success(store, "r")
    assert success is not None
    return success.fragments
