"""`mlcls report` and `mlcls diff`: the numbers, and the pages in a real browser."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest

from mlcls_ray import open_labels
from mlcls_ray.errors import UsageError
from mlcls_ray.explore.diff import find_differences
from mlcls_ray.explore.facts import gather_facts
from mlcls_ray.explore.report import make_report
from mlcls_ray.explore.sheets import choose_sheets, list_failed
from mlcls_ray.models.cache import open_model
from tests.conftest import run_cli
from tests.explore.labeled import HOSTILE


def test_facts(labeled: Path) -> None:
    table = open_labels(str(labeled), run_id="one")
    facts = gather_facts(table)
    assert facts.statuses == {"ok": 13, "empty": 1, "not_an_image": 1}
    labels = {label.name: label for label in facts.labels}
    assert len(labels) == 80
    rows = table.sql("SELECT labels FROM labels WHERE status = 'ok'").fetchall()
    for name, label in labels.items():
        assert label.images == sum(name in image_labels for (image_labels,) in rows)
    assert labels["person"].images > labels["zebra"].images == 0
    assert all(sum(label.scores) == 13 for label in facts.labels), "one score per image and class"
    model = open_model("starter")
    for name, threshold in zip(model.vocabulary, model.thresholds, strict=True):
        assert labels[name].threshold == pytest.approx(threshold)
    assert sum(number * images for number, images in facts.labels_per_image.items()) == sum(
        label.images for label in facts.labels
    )
    for pair in facts.pairs:
        assert pair.images == sum({pair.first, pair.second} <= set(image_labels) for (image_labels,) in rows) > 0
        together = labels[pair.first].images * labels[pair.second].images
        assert pair.lift == pytest.approx(pair.images * 13 / together)
    assert sum(rate for _, rate in facts.throughput) > 0
    assert facts.hosts == [("empty", "local", 1), ("not_an_image", "local", 1)]
    assert facts.sampled == facts.rows == 15


def test_sheets_are_the_surest_and_the_nearest(labeled: Path) -> None:
    table = open_labels(str(labeled), run_id="one")
    (person, _) = choose_sheets(table, ["person", "cat"], 12)
    surest = [example.score for example in person.examples["surest"]]
    query = (
        "SELECT list_extract(scores, list_position(labels, 'person')) FROM labels WHERE list_contains(labels, 'person')"
    )
    assert surest == sorted((row[0] for row in table.sql(query).fetchall()), reverse=True)[:2]
    distances = [abs(example.score - (example.threshold or 0)) for example in person.examples["nearest"]]
    assert distances == sorted(distances)
    assert len(distances) == 2
    assert [row.status for row in list_failed(table)] == ["empty", "not_an_image"]


def test_thumbnails_are_bounded(labeled: Path) -> None:
    table = open_labels(str(labeled))
    few = make_report(table, thumbnails=3)
    assert 0 < few.count("data:image/jpeg") <= 3
    assert make_report(table, thumbnails=0).count("data:image/jpeg") == 0


def opened(browser: Any, page: Path, width: int = 1200) -> Any:
    browser.set_window_size(width, 900)
    browser.get_log("browser")  # of the page before
    browser.get(page.as_uri())
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    return browser


def shown(browser: Any, selector: str) -> list[Any]:
    return [element for element in browser.find_elements("css selector", selector) if element.is_displayed()]


def test_the_page_in_a_browser(labeled: Path, browser: Any, tmp_path: Path) -> None:
    output = run_cli("report", labeled).stdout
    assert re.search(r"report\.html: \d+\.\d MB", output)
    page = opened(browser, labeled / "report.html")
    assert page.title.startswith("Labels of ")
    assert page.execute_script("return window.alert.toString()").startswith("function"), "and no name became code"
    pictures = shown(page, "#sheets-of-labels img")
    assert pictures
    assert all(page.execute_script("return arguments[0].naturalWidth", picture) > 0 for picture in pictures)
    assert all(image.get_attribute("alt") for image in page.find_elements("css selector", "img"))
    assert len(shown(page, "#label-rows tr")) == 80
    page.find_element("id", "find").send_keys("ca")
    matching = {name for name in open_model("starter").vocabulary if "ca" in name}
    assert {row.get_attribute("data-label") for row in shown(page, "#label-rows tr")} == matching
    assert page.find_element("id", "found").text == f"{len(matching)} labels"
    page.find_element("id", "find").clear()
    page.find_element("id", "find").send_keys(" ")
    page.find_element("css selector", "#label option:nth-child(2)").click()
    assert len(shown(page, "#sheets-of-labels details")) == 1
    page.find_element("css selector", "input[value=random]").click()
    assert not shown(page, "[data-kind=random]")
    page.find_element("css selector", "#error-status option:nth-child(2)").click()
    assert len(shown(page, "#error-rows tr")) == 1
    text = page.find_element("tag name", "body").get_attribute("textContent")
    assert HOSTILE in text
    assert "text</script><b>.jpg" in text


def test_the_page_on_a_phone_by_keyboard_and_in_the_dark(labeled: Path, browser: Any, tmp_path: Path) -> None:
    run_cli("report", labeled, "--save", tmp_path / "deep" / "page.html")
    page = opened(browser, tmp_path / "deep" / "page.html", width=500)
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 360, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    )
    assert page.execute_script("return document.documentElement.scrollWidth") <= 360, "only tables scroll sideways"
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    light = page.execute_script("return getComputedStyle(document.body).backgroundColor")
    page.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    )
    assert page.execute_script("return getComputedStyle(document.body).backgroundColor") != light
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    from selenium.webdriver.common.keys import Keys

    reached = []
    for _ in range(14):
        page.switch_to.active_element.send_keys(Keys.TAB)
        reached.append(page.execute_script("return document.activeElement.id || document.activeElement.tagName"))
    assert "find" in reached
    assert "label" in reached
    unnamed = page.execute_script(
        "return [...document.querySelectorAll('input, select')].filter(one => !one.labels.length).map(one => one.id)"
    )
    assert unnamed == [], "each control has a label that a screen reader says"
    levels = page.execute_script("return [...document.querySelectorAll('h1, h2, h3')].map(one => +one.tagName[1])")
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_diff(labeled: Path, browser: Any, tmp_path: Path) -> None:
    before, after = (open_labels(str(labeled), run_id=run) for run in ("one", "two"))
    differences = find_differences(before, after)
    assert (differences.images, differences.only_before, differences.only_after, differences.restatused) == (
        15,
        0,
        0,
        0,
    )
    old = dict(before.sql("SELECT uri, labels FROM labels").fetchall())
    new = dict(after.sql("SELECT uri, labels FROM labels").fetchall())
    flipped = {uri for uri in old if set(old[uri] or []) != set(new[uri] or [])}
    assert {flip.uri for flip in differences.examples} == flipped
    assert differences.flipped == len(flipped) > 0
    assert len(differences.classes) == 80
    assert all(change.psi == pytest.approx(0) for change in differences.classes), "the scores are the same"
    assert all(change.after == change.before + change.gained - change.lost for change in differences.classes)
    for change in differences.classes:
        assert change.before == sum(change.name in (labels or []) for labels in old.values())
        assert change.gained == sum(change.name in set(new[uri] or []) - set(old[uri] or []) for uri in old)
    printed = run_cli("diff", labeled / "runs/one", labeled / "runs/two", "--save", tmp_path / "diff.html").stdout
    assert f"15 images in both (0 only before, 0 only after): {len(flipped)} with other labels" in printed
    page = opened(browser, tmp_path / "diff.html")
    assert len(shown(page, "#flips li")) == len(flipped)
    page.find_element("id", "find").send_keys("cup")
    assert len(shown(page, "#flips li")) < len(flipped)


def test_what_is_not_there(labeled: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no committed run 'onee': did you mean 'one'"):
        open_labels(str(labeled), run_id="onee")
    assert "no committed run" in run_cli("report", tmp_path, check=2).stderr
    (tmp_path / "file").touch()
    assert "cannot be written" in run_cli("report", labeled, "--save", tmp_path / "file/page.html", check=2).stderr
