"""`mlcls retry`: what failed is tried again, with what signs its URL, and the attempts are counted."""

from __future__ import annotations

from collections.abc import Callable
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import pytest

from mlcls_ray.errors import UsageError
from mlcls_ray.job.label import label
from mlcls_ray.job.retry import retry_job
from mlcls_ray.storage.store import Store
from mlcls_ray.table.label_table import open_labels
from mlcls_ray.table.records import run_ids
from mlcls_ray.table.verify import verify
from tests.conftest import Handler, encode, picture, quick_job, reply

pytestmark = pytest.mark.usefixtures("loopback_ray")

NEWEST = "SELECT parse_filename(uri), status, attempts FROM labels ORDER BY 1"


def test_what_failed_is_tried_again(tiny_folder: Path, tmp_path: Path, http_server: Callable[[Handler], str]) -> None:
    is_mended = False

    def answer(request: SimpleHTTPRequestHandler) -> None:
        if "broken" in request.path and not is_mended:
            reply(request, b"", 503)
        elif "gone" in request.path:
            reply(request, b"", 404)
        elif "signature=s3cret" in request.path:
            reply(request, encode(picture()))
        else:
            reply(request, b"", 403)

    base = http_server(answer)
    names = ("good", "broken1", "broken2", "gone")
    (tmp_path / "list.txt").write_text("".join(f"{base}/{name}.jpg?signature=s3cret\n" for name in names))
    out = str(tmp_path / "out")
    job = quick_job(inputs=(str(tmp_path / "list.txt"),), out=out, model=str(tiny_folder), fetch_attempts=1)
    label(job)
    first = [
        ("broken1.jpg", "http_5xx", 1),
        ("broken2.jpg", "http_5xx", 1),
        ("gone.jpg", "missing", 1),
        ("good.jpg", "ok", 1),
    ]
    assert open_labels(out).sql(NEWEST).fetchall() == first

    (tmp_path / "list.txt").unlink()  # not needed: the manifests know
    again = label(retry_job(out, ("timeout", "http_5xx", "engine"), None, None))
    assert again.statuses == {"http_5xx": 2}
    is_mended = True
    assert label(retry_job(out, ("http_5xx",), "mended", None)).is_new
    table = open_labels(out)
    assert table.sql(NEWEST).fetchall() == [
        ("broken1.jpg", "ok", 3),
        ("broken2.jpg", "ok", 3),
        ("gone.jpg", "missing", 1),
        ("good.jpg", "ok", 1),
    ]
    assert len(table.all_rows()) == 4 + 2 + 2
    assert len(table.polars()) == len(table.pandas()) == len(table.duckdb()) == 4

    store = Store(out)
    before = run_ids(store)
    assert label(retry_job(out, ("http_5xx",), None, None)).rows == 0
    assert run_ids(store) == before, "nothing to retry leaves nothing"
    assert verify(store) == []
    assert not any(
        b"s3cret" in path.read_bytes()
        for path in Path(out).rglob("*")
        if path.is_file() and "manifest" not in str(path)
    )


def test_what_cannot_be_retried(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown status 'time_out': did you mean 'timeout'"):
        retry_job(str(tmp_path), ("time_out",), None, None)
    with pytest.raises(UsageError, match="unknown status 'ok'"):
        retry_job(str(tmp_path), ("ok",), None, None)
    with pytest.raises(UsageError, match="holds no committed run"):
        retry_job(str(tmp_path), ("timeout",), None, None)
    with pytest.raises(UsageError, match="holds no committed run"):
        open_labels(str(tmp_path))
