"""A label table with everything in it: two runs, errors, hostile names; and a real browser."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlcls_ray.config import Thresholds
from mlcls_ray.storage.store import Store
from mlcls_ray.table.relabel import relabel
from tests.conftest import run_cli, start_ray

HOSTILE = "<img src=x onerror=alert(1)>&\"'.jpg"


@pytest.fixture(scope="session")
def labeled(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo under two thresholds (runs `one` and `two`), with two images that are none."""
    folder = tmp_path_factory.mktemp("explored")
    images = Path(shutil.copytree(demo, folder / "images"))
    (images / HOSTILE).write_bytes((demo / "cat.jpg").read_bytes())
    (images / "empty.jpg").touch()
    (images / "text<").mkdir()
    (images / "text<" / "script><b>.jpg").write_text("no image")
    out = folder / "out"
    start_ray()
    run_cli(
        "label", images, "--out", out, "--run-id", "one", "--workers", 1, "--engine", "openvino", "--precision", "fp32"
    )
    relabel(Store(str(out)), Thresholds(default=0.5, classes={"cat": 0.3}), run_id="two")
    return out


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """Headless Chromium that loads nothing by itself."""
    driver = shutil.which("chromedriver")
    if driver is None:
        pytest.skip("needs chromium and chromium-driver (scripts/test installs them where it may)")
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    for flag in (
        "headless=new",
        "no-sandbox",
        "disable-gpu",
        "no-first-run",
        "disable-background-networking",
        "disable-sync",
    ):
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    options.add_argument("--window-size=1200,900")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    os.environ["SE_AVOID_STATS"] = "true"
    started = webdriver.Chrome(options=options, service=Service(driver))
    yield started
    started.quit()
