"""`scripts/cron_label`: nights over a changing folder, and nights that fail."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import pytest
import yaml
from PIL import Image

from mlcls_ray import open_labels
from mlcls_ray.job.nightly import LOG_BYTES, LOGS_KEPT, open_log
from mlcls_ray.storage.store import Store
from mlcls_ray.table.verify import verify
from tests.conftest import ROOT, Handler, encode, hard_links, picture, reply

CRON = ROOT / "scripts" / "cron_label"


@pytest.fixture
def config(tiny_folder: Path, tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    path = tmp_path / "photos.yaml"
    job = {"inputs": str(tmp_path / "photos"), "out": str(tmp_path / "out"), "model": str(tiny_folder)}
    path.write_text(yaml.safe_dump(job))
    return path


def night(config: Path, *flags: object, check: int = 0) -> dict[str, object]:
    """Run one night and return its summary, which is printed and appended to summary.jsonl."""
    command = [CRON, config, "--logs", config.parent / "logs", *map(str, flags)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd="/")
    assert done.returncode == check, done.stdout + done.stderr
    (line,) = done.stdout.splitlines()
    assert (config.parent / "logs/summary.jsonl").read_text().splitlines()[-1] == line
    summary: dict[str, object] = json.loads(line)
    assert summary["exit_code"] == check
    return summary


def counts(summary: dict[str, object]) -> tuple[object, ...]:
    return tuple(summary[name] for name in ("listed", "new", "changed", "retried", "other_model", "vanished"))


@pytest.mark.slow
def test_nights_over_a_changing_folder(config: Path) -> None:
    photos, out = config.parent / "photos", config.parent / "out"
    for number in range(4):
        (photos / f"{number}.jpg").write_bytes(encode(picture(seed=number)))
    first = night(config)
    assert (first["rows"], first["statuses"]) == (4, {"ok": 4})
    assert counts(first) == (4, 4, 0, 0, 0, 0)
    (photos / "new.jpg").write_bytes(encode(picture(seed=9)))
    (photos / "0.jpg").write_bytes(encode(picture(80, 60, seed=10)))
    (photos / "bad.jpg").write_text("no image")
    (photos / "layers.PSD").write_text("not read")
    second = night(config)
    assert (second["rows"], second["statuses"]) == (3, {"not_an_image": 1, "ok": 2})
    assert counts(second) == (6, 2, 1, 0, 0, 0)
    assert second["left_out"] == {".psd": 1}
    third = night(config, "--keep", "0h")
    assert (third["run_id"], third["rows"], third["pruned"]) == (None, 0, [])
    assert counts(third) == (6, 0, 0, 0, 0, 0)
    assert (second["drift"]["verdict"], third["drift"]) == ("unknown", None)  # type: ignore[index]
    for number in range(4):
        (photos / f"{number}.jpg").write_bytes(encode(picture(90, 60, seed=20 + number)))
    fourth = night(config, "--keep", "0h")
    assert (fourth["rows"], fourth["pruned"]) == (4, [first["run_id"]])
    assert verify(Store(str(out))) == []
    assert open_labels(str(out)).sql("SELECT count(*) FROM labels").fetchall() == [(6,)]
    log = (config.parent / "logs/mlcls.log").read_text()
    assert "nothing new: each input that was found is labeled already (6 listed: 0 new, " in log
    assert "6 listed: 2 new, 1 changed, 0 retried, 0 vanished" in log
    assert "import pandas" not in log
    assert "3 images: 2 ok, 1 not_an_image" in log


def test_a_night_that_fails_is_posted_to_the_webhook(config: Path, http_server: Callable[[Handler], str]) -> None:
    posted: list[dict[str, object]] = []

    def webhook(request: SimpleHTTPRequestHandler) -> None:
        posted.append(json.loads(request.rfile.read(int(request.headers["Content-Length"]))))
        reply(request, b"", 503 if len(posted) == 1 else 200)

    url = http_server(webhook)
    summary = night(config, "--webhook", url, check=2)  # exit code 2: an empty folder may be one that is not mounted
    assert "no image found" in str(summary["message"])
    assert counts(summary) == (None,) * 6
    assert len(posted) == 2, "tried again after the 503"
    assert "no image found" in str(posted[1]["text"])
    assert posted[1]["exit_code"] == 2
    assert night(config, "--webhook", "http://127.0.0.1:9/", check=2)["exit_code"] == 2


@pytest.mark.slow
def test_a_night_of_other_images(config: Path, http_server: Callable[[Handler], str]) -> None:
    """The summary says in any case that labels have moved; the exit code does if it is asked to."""
    posted: list[dict[str, object]] = []

    def webhook(request: SimpleHTTPRequestHandler) -> None:
        posted.append(json.loads(request.rfile.read(int(request.headers["Content-Length"]))))
        reply(request, b"")

    photos, flags = config.parent / "photos", ("--webhook", http_server(webhook), "--fail-on-drift")
    drifts = []
    for colour, check in (("white", 0), ("black", 5)):
        image = encode(Image.new("RGB", (64, 48), colour))
        for number in range(120):
            (photos / f"{colour}-{number:03d}.jpg").write_bytes(image)
        summary = night(config, *flags, check=check)
        assert summary["rows"] == 120
        drifts.append(summary["drift"])
    assert [drift["verdict"] for drift in drifts] == ["unknown", "drift"]  # type: ignore[index]
    assert drifts[1]["moved"] >= 1  # type: ignore[index]
    assert drifts[1]["highest_psi"] > 0.2  # type: ignore[index]
    assert [body["exit_code"] for body in posted] == [5]
    assert "the scores of" in str(posted[0]["text"])
    log = (config.parent / "logs/mlcls.log").read_text()
    assert f"drift: {drifts[1]['sentence']}" in log  # type: ignore[index]


def rows_done(out: Path) -> int:
    """Read the progress file, as any script may."""
    return sum(json.loads(path.read_text())["done"] for path in out.glob("runs/*/progress.json"))


@pytest.mark.slow
def test_two_nights_at_once_and_sigterm(config: Path) -> None:
    """The second night is refused with exit code 4. SIGTERM keeps the finished rows, and the next night resumes the run."""
    photos = config.parent / "photos"
    photos.rmdir()
    hard_links(photos, 20_000)
    config.write_text(config.read_text() + "batch_size: 1\nblock_rows: 32\nfetch_threads: 1\nrows_per_fragment: 100\n")
    first = subprocess.Popen([CRON, config, "--logs", config.parent / "logs-1"], stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not rows_done(config.parent / "out"):
        assert first.poll() is None, first.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert "is being worked on" in str(night(config, check=4)["message"])
    first.send_signal(signal.SIGTERM)
    summary = json.loads(first.communicate(timeout=120)[0])
    assert summary["exit_code"] == 130, summary
    assert night(config)["rows"] == 20_000
    assert verify(Store(str(config.parent / "out"))) == []


def test_wrong_flags_are_refused_before_the_job_starts(config: Path) -> None:
    for flags, message in ((("--keep", "monthly"), "not an age"), (("--webhook", "ftp://x"), "not an http")):
        done = subprocess.run([CRON, config, *flags], capture_output=True, text=True, cwd=config.parent)
        assert (done.returncode, message in done.stderr) == (2, True)


def test_the_log_rotates(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    for _ in range(LOG_BYTES * (LOGS_KEPT + 2) // 1_000_000):
        log.info("x" * 999_000)
    for handler in log.handlers:
        handler.close()
    sizes = [os.path.getsize(path) for path in tmp_path.iterdir()]
    assert len(sizes) == LOGS_KEPT + 1
    assert max(sizes) <= LOG_BYTES
