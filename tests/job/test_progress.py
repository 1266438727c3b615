"""Progress: a live bar on a terminal, plain lines elsewhere, Ray's own noise in neither."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from mlcls_ray.job.progress import Counts, FileView, LineView, Snapshot, poll_progress
from mlcls_ray.storage.store import Store
from tests.conftest import MLCLS, run_installed


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
    assert "starting the workers" in text
    assert "stopping Ray" in text
    assert "12/12" in text
    for noise in ("ray::", "WARNING", "INFO", "logging.cc", "OneDNN", "ccache"):
        assert noise not in text


def test_plain_lines_elsewhere(tiny_folder: Path, demo: Path, tmp_path: Path) -> None:
    """In a pipe: a line for each step, none twice, the last of the labeling at 100 %. The run again: that it is there already."""
    photos, out = shutil.copytree(demo, tmp_path / "photos"), tmp_path / "out"
    for name in ("1.PSD", "2.psd", "clip.MOV"):
        (photos / name).write_bytes(b"x")
    words = (
        "label", photos, "--out", out, "--model", tiny_folder, "--workers", 1, "--engine", "openvino", "--precision", "fp32",
        "--run-id", "r",
    )  # fmt: skip
    done = run_installed(*words)
    lines = done.stderr.splitlines()
    shown = [line for line in lines if re.match(r"\d+ of 12 images", line)]
    assert re.fullmatch(r"12 of 12 images(, [\d.]+/s)?, 0 errors", shown[-1])
    assert [line for line in lines if line not in shown and not line.startswith("starting the workers, ")] == [
        "starting Ray", "listing the inputs", "choosing an engine for tiny", "starting the workers", "committing the run", "stopping Ray",
    ]  # fmt: skip
    assert len(lines) == len(set(lines)), lines
    assert "\x1b" not in done.stdout + done.stderr
    assert "left out by their names, not read: 2 .psd, 1 .mov, 1 .tsv\n" in done.stdout
    assert json.loads((out / "runs/r/run.json").read_text())["left_out"] == {".psd": 2, ".mov": 1, ".tsv": 1}
    assert f"\nlook at it:  mlcls report {out}\n" in done.stdout
    again = run_installed(*words, "--json")
    assert "run 'r' was committed before, 20" in again.stderr
    assert "12 images: 12 ok\n" in again.stderr, "no rate: nothing was labeled"
    result = json.loads(again.stdout)
    assert (result["run_id"], result["rows"], result["is_new"], result["left_out"][".psd"]) == ("r", 12, False, 2)
    assert "s3" not in result


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


def test_lines_while_something_changes_and_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    view, nothing, half, all_of_them = (
        LineView(),
        Counter[str](),
        Counter(ok=990, missing=10),
        Counter(ok=1499, missing=1),
    )
    for seconds in range(5, 45, 5):
        view.show(Snapshot(2000, 500, nothing, 0.0, seconds), is_last=False)
    assert capsys.readouterr().err == "starting the workers, 30 s\n"
    for seconds in range(45, 90, 5):
        view.show(Snapshot(2000, 1500, half, 50.0, seconds), is_last=False)
    repeated = "1,500 of 2,000 images, 50/s, 10 errors, 10 s left\n"
    assert capsys.readouterr().err == 2 * repeated, "one that says nothing new comes after half a minute"
    view.show(Snapshot(2000, 2000, all_of_them, 5.04, 90), is_last=False)
    view.show(Snapshot(2000, 2000, all_of_them, 5.04, 91), is_last=True)
    assert (
        capsys.readouterr().err
        == "2,000 of 2,000 images, 5.0/s, 1 error, writing\n2,000 of 2,000 images, 5.0/s, 1 error\n"
    )


def test_the_last_counts_are_those_that_were_written() -> None:
    """The monitor's counts may be late, and it may not answer at the end."""
    answers = iter([Counter(ok=5), None, Counter(ok=7)])
    counts = Counts(lambda: next(answers))
    assert [counts()["ok"], counts()["ok"]] == [5, 5]
    counts.finish({"ok": 9, "empty": 1})
    assert counts() == Counter(ok=9, empty=1)


def test_the_file(tmp_path: Path) -> None:
    snapshot = Snapshot(2000, 1500, Counter(ok=990, missing=10), 50.0)
    store = Store(str(tmp_path))
    for is_last, state in ((False, "running"), (True, "ended")):
        FileView(store, "r").show(snapshot, is_last)
        written = store.read_json("runs/r/progress.json")
        assert written.pop("updated_at")
        assert written == {
            "run_id": "r", "state": state, "rows": 2000, "done": 1500, "statuses": {"ok": 990, "missing": 10},
            "images_per_s": 50.0, "seconds_left": 10.0,
        }  # fmt: skip
