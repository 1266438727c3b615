"""The page of `mlcls drift` in a real browser: numbers, hostile names, phone, dark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlcls_ray.errors import DRIFT_EXIT_CODE
from tests.conftest import run_cli
from tests.explore.test_report import opened, shown
from tests.table.drift.nights import usual_scores, write_night

HOSTILE = "</script><img src=x onerror=alert(1)>\"'&"
CLASSES = ("boat", HOSTILE, "dog", "ca|t\x1b[2J")


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a night on which the label of the hostile name moved, and errors rose."""
    folder = tmp_path_factory.mktemp("drift <b>&")
    out = str(folder / "out")
    for night in range(3):
        write_night(out, f"night-{night}", usual_scores(400, night), classes=CLASSES)
    moved = usual_scores(400, 9)
    moved[:, 1] = moved[:, 1] ** 0.2
    write_night(out, "<i>now", moved, classes=CLASSES, failed=("timeout",) * 60, threshold=0.4, model="<b>m</b>")
    done = run_cli("drift", out, "--html", folder / "drift.html", check=DRIFT_EXIT_CODE)
    assert "\x1b" not in done.stdout
    assert HOSTILE in done.stdout
    return folder / "drift.html"


def test_the_page_shows_what_moved(page_file: Path, browser: Any) -> None:
    page = opened(browser, page_file)
    assert page.find_element("tag name", "h1").text == "Something has moved"
    assert "the scores of 1 label moved" in page.find_element("css selector", ".verdict").text
    rows = shown(page, "#label-rows tr")
    assert len(rows) == 4
    assert rows[0].get_attribute("data-label") == HOSTILE
    assert "moved" in rows[0].text
    assert page.execute_script("return document.images.length") == 0, "no name became markup"
    assert len(page.find_elements("css selector", "#label-rows svg rect")) == 4 * 2 * 10
    name = page.find_element("css selector", "#label-rows svg").get_attribute("aria-label")
    assert name.startswith(f"{HOSTILE}: 0.0 to 0.1: ")
    page.find_element("id", "find").send_keys("bo")
    assert [row.get_attribute("data-label") for row in shown(page, "#label-rows tr")] == ["boat"]
    text = page.find_element("tag name", "body").get_attribute("textContent")
    assert "<i>now" in text
    assert "thresholds changed" in text
    assert "rose" in text


def test_the_page_on_a_phone_and_in_the_dark(page_file: Path, browser: Any) -> None:
    page = opened(browser, page_file, width=500)
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    )
    assert page.execute_script("return document.documentElement.scrollWidth") <= 390, "only tables scroll sideways"
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    bar = "return getComputedStyle(document.querySelector('.pair .now')).fill"
    light = page.execute_script(bar)
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    assert page.execute_script(bar) != light
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
