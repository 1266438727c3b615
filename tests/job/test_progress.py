"""Progress: a live bar on a terminal, plain lines elsewhere, Ray's own noise in neither."""

from __future__ import annotations

import os
import pty
import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from mlcls_ray.job.progress import FileView, LineView, Snapshot, poll_progress
from mlcls_ray.storage.store import Store
from tests.conftest import MLCLS, run_cli


@pytest.mark.slow
def test_a_bar_on_a_terminal(tiny_folder: Path, demo: Path, tmp_path: Path) -> None:
    """A real pseudo-terminal."""
    leader, follower = pty.openpty()
    command = [MLCLS, "label", demo, "--out", tmp_path, "--model", tiny_folder]
    process = subprocess.Popen(
        command, stdout=follower, stderr=follower, env={**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    )
    os.close(follower)
    shown = b""
    while True:
        try:
            part = os.read(leader, 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    os.close(leader)
    assert process.wait() == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert "labeling" in text
    assert "starting workers" in text
    assert "12/12" in text
    for noise in ("ray::", "WARNING", "INFO", "logging.cc", "OneDNN", "ccache"):
        assert noise not in text


def test_plain_lines_elsewhere(loopback_ray: None, tiny_folder: Path, demo: Path, tmp_path: Path) -> None:
    done = run_cli(
        "label",
        demo,
        "--out",
        tmp_path,
        "--model",
        tiny_folder,
        "--workers",
        1,
        "--engine",
        "openvino",
        "--precision",
        "fp32",
    )
    lines = done.stderr.splitlines()
    assert all(re.fullmatch(r"[\d,]+ of 12 images, \d+/s, \d+ errors(, \d+ s left)?", line) for line in lines), lines
    assert "\x1b" not in done.stdout + done.stderr


class Seen:
    """A view that writes down what it was shown."""

    interval_s = 2.0

    def __init__(self) -> None:
        self.snapshots: list[tuple[Snapshot, bool]] = []

    def show(self, snapshot: Snapshot, is_last: bool) -> None:
        self.snapshots.append((snapshot, is_last))


class Broken(Seen):
    def show(self, snapshot: Snapshot, is_last: bool) -> None:
        raise OSError("no space left")


def test_each_view_is_shown_at_its_own_interval_and_at_the_end() -> None:
    """Polled each half second by a clock that moves as it is waited for: 10 images a second from the start on."""
    now = [0.0]

    def wait(seconds: float) -> bool:
        now[0] += seconds
        return now[0] >= 5.0

    seen = Seen()
    poll_progress(lambda: Counter(ok=int(now[0] * 10), corrupt=1), (Broken(), seen), 100, 20, wait, lambda: now[0])
    assert [(snapshot.done, is_last) for snapshot, is_last in seen.snapshots] == [(41, False), (61, False), (71, True)]
    last = seen.snapshots[-1][0]
    assert last.rate == pytest.approx(10.0)
    assert last.seconds_left == pytest.approx(2.9)


def test_a_monitor_that_starts_again_does_not_make_the_rate_negative() -> None:
    now, counts = [0.0], iter([50, 100, 5, 10])

    def wait(seconds: float) -> bool:
        now[0] += 2.0
        return now[0] >= 8.0

    seen = Seen()
    poll_progress(lambda: Counter(ok=next(counts)), (seen,), 1000, 0, wait, lambda: now[0])
    assert [snapshot.rate for snapshot, _ in seen.snapshots] == [0.0, 25.0, 0.0, 2.5]


def test_lines_and_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    snapshot = Snapshot(2000, 1500, Counter(ok=990, missing=10), 50.0)
    LineView().show(snapshot, is_last=False)
    LineView().show(snapshot, is_last=True)
    assert capsys.readouterr().err == "1,500 of 2,000 images, 50/s, 10 errors, 10 s left\n"
    store = Store(str(tmp_path))
    for is_last, state in ((False, "running"), (True, "ended")):
        FileView(store, "r").show(snapshot, is_last)
        written = store.read_json("runs/r/progress.json")
        assert written.pop("updated_at")
        assert written == {
            "run_id": "r", "state": state, "rows": 2000, "done": 1500, "statuses": {"ok": 990, "missing": 10},
            "images_per_s": 50.0, "seconds_left": 10.0,
        }  # fmt: skip
