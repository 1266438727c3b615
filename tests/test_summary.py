"""The summary of a run: names, messages and paths as they are."""

from __future__ import annotations

import io
import json
from datetime import datetime, timezone
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mlcls_ray.cli.summary import print_summary
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout
from mlcls_ray.table.ledger import Fragment
from mlcls_ray.table.records import Success
from mlcls_ray.terminal import make_console, plain

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
    assert f"pandas.read_parquet({json.dumps(str(folder))})" in text
    assert "no label above the threshold" in text
    assert not [control for control in ("\x1b", "\u202e") if control in text]
