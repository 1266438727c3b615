"""SIGKILL at random moments: workers while the job goes on, drivers between its attempts. Every row ends in exactly one row."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import pytest

from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout
from mlcls_ray.table.verify import verify
from tests.conftest import MLCLS, Handler, encode, hard_links, picture, reply
from tests.faults.exactly_once import exactly_once

ROWS = 8_000


def processes() -> dict[int, tuple[int, str]]:
    """pid → (parent, command line) of every process of this machine."""
    found = {}
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as stream:
                parent = int(stream.read().rpartition(")")[2].split()[1])
            with open(f"/proc/{name}/cmdline", "rb") as stream:
                found[int(name)] = (parent, stream.read().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue  # it ended in between
    return found


def descendants(pid: int) -> dict[int, str]:
    everything = processes()
    chosen: dict[int, str] = {}
    parents = {pid}
    while parents:
        children = {one: line for one, (parent, line) in everything.items() if parent in parents and one not in chosen}
        chosen |= children
        parents = set(children)
    return chosen


def kill_driver(driver: subprocess.Popen[bytes]) -> None:
    """The driver, and with it the Ray that it started: as when a machine loses power."""
    family = [driver.pid, *descendants(driver.pid)]
    for pid in family:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    driver.wait()


def kill_worker(driver: subprocess.Popen[bytes], chance: random.Random) -> bool:
    """One scoring worker; False where there is none at the moment."""
    workers = [pid for pid, line in descendants(driver.pid).items() if "ray::MapWorker" in line]
    if not workers:
        return False
    try:
        os.kill(chance.choice(workers), signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture(scope="module")
def many_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hard_links(tmp_path_factory.mktemp("many") / "images", ROWS)


def run_with_kills(images: Path, model: Path, out: Path, seed: int, worker_kills: int, driver_kills: int) -> int:
    """Run to the end through kills; returns how many there were."""
    chance = random.Random(seed)
    config = out.parent / f"{out.name}.yaml"
    config.write_text("rows_per_fragment: 300\nblock_rows: 100\nengine: openvino\nprecision: fp32\n")
    command = [MLCLS, "label", images, "--out", out, "--model", model, "--run-id", "r", "--config", config]
    killed = 0
    for attempt in range(driver_kills + 1):
        driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        deadline = time.monotonic() + 120
        if attempt < driver_kills:
            time.sleep(chance.uniform(2, 11))  # while it starts, lists, loads or scores
            kill_driver(driver)
            killed += 1
            continue
        while driver.poll() is None and time.monotonic() < deadline:
            if worker_kills and kill_worker(driver, chance):
                worker_kills -= 1
                killed += 1
                time.sleep(chance.uniform(0.5, 3))
            time.sleep(0.1)
        assert driver.stderr is not None
        assert driver.wait(timeout=120) == 0, driver.stderr.read().decode()
    return killed


def test_kills(many_images: Path, tiny_folder: Path, tmp_path: Path) -> None:
    assert run_with_kills(many_images, tiny_folder, tmp_path / "out", 1, worker_kills=2, driver_kills=1) >= 3
    assert exactly_once(tmp_path / "out", "r", ROWS)
    assert verify(Store(str(tmp_path / "out"))) == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_kills(many_images: Path, tiny_folder: Path, tmp_path: Path) -> None:
    killed = 0
    seed = 100
    while killed < 50:
        out = tmp_path / f"out-{seed}"
        killed += run_with_kills(many_images, tiny_folder, out, seed, worker_kills=3, driver_kills=3)
        assert exactly_once(out, "r", ROWS), seed
        assert verify(Store(str(out))) == [], seed
        seed += 1


@pytest.mark.slow
def test_how_many_are_scored_twice(
    tiny_folder: Path, tmp_path: Path, http_server: Callable[[Handler], str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Counted by the server that the images come from: what is in a fragment is never fetched again."""
    rows, kills, fragment_rows = 6_000, 3, 300
    data, fetched = encode(picture()), Counter[str]()

    def answer(request: SimpleHTTPRequestHandler) -> None:
        fetched[request.path] += 1
        reply(request, data)

    base = http_server(answer)
    (tmp_path / "list.txt").write_text("".join(f"{base}/{number}.jpg\n" for number in range(rows)))
    out = tmp_path / "out"
    (tmp_path / "job.yaml").write_text(
        f"rows_per_fragment: {fragment_rows}\nblock_rows: 100\nengine: openvino\nprecision: fp32\n"
    )
    command = [MLCLS, "label", tmp_path / "list.txt", "--out", out, "--model", tiny_folder, "--run-id", "r"]
    labels = out / layout.labels_folder("r")
    for number in range(1, kills + 1):
        driver = subprocess.Popen([*command, "--config", tmp_path / "job.yaml"], stderr=subprocess.DEVNULL)
        wanted = number * rows // (kills + 1) // fragment_rows
        while not labels.is_dir() or len(list(labels.glob("*.parquet"))) < wanted:
            assert driver.poll() is None
            time.sleep(0.02)
        kill_driver(driver)
    subprocess.run([*command, "--config", tmp_path / "job.yaml"], check=True, stderr=subprocess.DEVNULL)
    assert exactly_once(out, "r", rows)
    twice = fetched.total() - rows
    with capsys.disabled():
        print(f"\n{kills} drivers killed: {twice} of {rows} images fetched again")
    assert twice <= kills * 4 * fragment_rows, (
        "what is in hand: fragments being filled and written, blocks being labeled"
    )
