"""The page of `mlcls browse` in a real browser: find, correct, undo, two tabs, thresholds, keys, phones and screen readers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from mlcls_ray import open_labels
from mlcls_ray.labels.thresholds import parse_thresholds
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout
from mlcls_ray.table.relabel import relabel
from tests.explore.browse.served import CLASSES, HOSTILE, IMAGES, Server, serving, write_output

TOTAL = IMAGES + 4
PATIENCE_S = 30
"""Two cores may be busy with other tests."""


@pytest.fixture(scope="module")
def server(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(write_output(tmp_path_factory.mktemp("page"), demo)) as started:
        yield started


@pytest.fixture
def page(browser: Any, server: Server) -> Iterator[Any]:
    """The page, opened anew; no error may have been logged when a test ends."""
    browser.set_window_size(1200, 900)
    browser.get_log("browser")
    browser.get(server.url)
    wait(browser, lambda: browser.current_url == f"{server.base}/")
    wait(browser, lambda: text(browser, "#count") == f"{TOTAL} images")
    yield browser
    assert browser.execute_script("return window.alert.toString()").startswith("function alert() { [native"), (
        "no name became code"
    )
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []


def wait(page: Any, condition: Callable[[], Any]) -> Any:
    from selenium.common.exceptions import StaleElementReferenceException

    return WebDriverWait(page, PATIENCE_S, 0.05, [StaleElementReferenceException]).until(lambda _: condition())


def all_of(page: Any, selector: str) -> list[Any]:
    return list(page.find_elements("css selector", selector))


def text(page: Any, selector: str) -> str:
    return str(page.find_element("css selector", selector).text)


def click(page: Any, selector: str) -> None:
    page.find_element("css selector", selector).click()


def press(page: Any, *keys: str) -> None:
    for key in keys:
        page.switch_to.active_element.send_keys(key)


def tile(page: Any, name: str) -> Any:
    """The tile of an image, by its name."""
    return wait(
        page, lambda: next((one for one in all_of(page, ".tile") if name in one.get_attribute("aria-label")), None)
    )


def search(page: Any, words: str, count: int) -> None:
    page.find_element("id", "text").clear()
    page.find_element("id", "text").send_keys(words)

    def is_shown() -> bool:
        tiles = all_of(page, ".tile")
        return len(tiles) == count and all(words in one.get_attribute("title") for one in tiles)

    wait(page, is_shown)
    wait(page, lambda: text(page, "#count") == f"{count} image{'' if count == 1 else 's'}")


def label_button(page: Any, name: str, selector: str = "button:not(.not)") -> Any:
    """The button of a label at the left."""
    return wait(
        page,
        lambda: next(
            (
                one
                for one in all_of(page, f"#label-list {selector}")
                if f"{name}\n" in one.text + "\n" or name in (one.get_attribute("aria-label") or "")
            ),
            None,
        ),
    )


def labels(server: Server, name: str) -> tuple[set[str], str | None]:
    table = open_labels(str(server.out), corrected=True)
    ((names, verdict),) = table.sql(f"SELECT labels, verdict FROM labels WHERE contains(uri, '/{name}')").fetchall()
    return set(names), verdict


def model_labels(server: Server, name: str) -> set[str]:
    return set(
        open_labels(str(server.out)).sql(f"SELECT labels FROM labels WHERE contains(uri, '/{name}')").fetchall()[0][0]
    )


def test_it_loads_while_one_scrolls(page: Any) -> None:
    first = len(all_of(page, ".tile"))
    assert 60 <= first <= TOTAL
    wait(page, lambda: page.execute_script("return document.querySelector('.tile:nth-child(4) img').naturalWidth > 1"))

    def scroll() -> bool:
        page.execute_script("window.scrollTo(0, document.body.scrollHeight)")
        return len(all_of(page, ".tile")) == TOTAL

    wait(page, scroll)
    ids = [one.get_attribute("data-id") for one in all_of(page, ".tile")]
    assert len(set(ids)) == TOTAL


def test_hostile_names_are_text_and_what_cannot_be_shown_says_why(page: Any) -> None:
    search(page, "onerror", 1)
    assert HOSTILE in tile(page, "onerror").get_attribute("aria-label")
    search(page, "gpj.exe", 1)
    assert text(page, ".tile .name") == "\\u202egpj.exe.jpg"
    for words, reason in (("gone.jpg", "missing: No such file"), ("secret.jpg", "not a public address")):
        search(page, words, 1)
        wait(page, lambda reason=reason: reason in text(page, ".tile .problem"))
    click(page, ".tile")
    wait(page, lambda: "not a public address" in text(page, "#viewer .problem"))
    press(page, Keys.ESCAPE)


def test_a_filter_and_a_reload(page: Any, server: Server) -> None:
    rows = open_labels(str(server.out)).sql("SELECT labels FROM labels").fetchall()
    cats = sum("cat" in (names or []) for (names,) in rows)
    both = sum({"cat", "<b>otter</b>"} <= set(names or []) for (names,) in rows)
    not_dogs = sum("cat" in (names or []) and "dog" not in (names or []) for (names,) in rows)
    label_button(page, "cat").click()
    wait(page, lambda: text(page, "#count") == f"{cats} images")
    wait(page, lambda: all("cat" in one.get_attribute("aria-label") for one in all_of(page, ".tile")))
    page.refresh()
    wait(page, lambda: text(page, "#count") == f"{cats} images")
    assert label_button(page, "cat").get_attribute("aria-pressed") == "true"
    label_button(page, "without dog", "button.not").click()
    wait(page, lambda: text(page, "#count") == f"{not_dogs} images")
    assert len(all_of(page, "#chips li")) == 3
    click(page, "#chips li:nth-child(2) button")
    page.find_element("css selector", "#match option[value=all]").click()
    label_button(page, "<b>otter</b>").click()
    wait(page, lambda: text(page, "#count") == f"{both} images")
    click(page, "#chips li:last-child button")
    wait(page, lambda: text(page, "#count") == f"{TOTAL} images")


def test_the_other_filters_and_the_order(page: Any, server: Server) -> None:
    for selector, count in (("#run option[value=two]", 30), ("#run option[value='']", TOTAL)):
        click(page, selector)
        wait(page, lambda count=count: text(page, "#count") == f"{count} images")
    click(page, "#class option[value=cat]")
    low = page.find_element("id", "low")
    low.clear()
    low.send_keys("0.8")
    click(page, "#add-range")
    query = "SELECT count(*) FROM scores WHERE label = 'cat' AND score >= 0.8::FLOAT"
    ((expected,),) = open_labels(str(server.out)).sql(query).fetchall()
    wait(page, lambda: text(page, "#count") == f"{expected} images")
    click(page, "#sort option[value=score]")

    def scores() -> list[float]:
        words = [one.text for one in all_of(page, ".tile .what")]
        return [float(part.split("cat ")[1][:4]) for part in words if "cat " in part]

    wait(page, lambda: len(scores()) > 5 and scores() == sorted(scores(), reverse=True))
    click(page, "#chips li button")
    click(page, "#first option[value=one]")
    click(page, "#second option[value=two]")
    wait(page, lambda: "one ≠ two" in text(page, "#chips"))
    wait(page, lambda: 0 < int(text(page, "#count").split()[0]) <= 30)


def test_correct_undo_and_reload(page: Any, server: Server) -> None:
    before = model_labels(server, "005.jpg")
    add = next(name for name in CLASSES if name not in before)
    tile(page, "005.jpg").click()
    wait(page, lambda: page.execute_script("return document.getElementById('viewer').open"))
    box = page.find_element("id", "one-label")
    box.send_keys(add, Keys.ENTER)
    wait(page, lambda: labels(server, "005.jpg") == (before | {add}, "labeled"))
    wait(page, lambda: "Looked at by ada" in text(page, "#viewer-verdict"))
    page.find_element("id", "viewer-name").click()
    page.execute_script("document.getElementById('viewer-name').focus()")
    press(page, "u")
    wait(page, lambda: labels(server, "005.jpg")[1] == "unsure")
    press(page, Keys.ESCAPE)
    wait(page, lambda: "unsure" in tile(page, "005.jpg").get_attribute("aria-label"))
    page.refresh()
    wait(page, lambda: "unsure" in tile(page, "005.jpg").get_attribute("aria-label"))
    wait(page, lambda: page.find_element("id", "undo").is_enabled())
    for expected in ((before | {add}, "labeled"), (before, None)):
        click(page, "#undo")
        wait(page, lambda expected=expected: labels(server, "005.jpg") == expected)
    wait(page, lambda: not page.find_element("id", "undo").is_enabled())


def test_many_at_once_by_keys(page: Any, server: Server) -> None:
    search(page, "/01", 10)
    names = [one.get_attribute("aria-label").partition(",")[0] for one in all_of(page, ".tile")[:3]]
    page.execute_script("document.querySelector('.tile').focus()")
    press(page, " ")
    press(page, Keys.SHIFT + Keys.ARROW_RIGHT, Keys.SHIFT + Keys.ARROW_RIGHT)
    wait(page, lambda: text(page, "#selected") == "3 selected")
    first = all_of(page, "#label-list .name")[0].text
    before = [model_labels(server, name) for name in names]
    page.execute_script("document.querySelectorAll('.tile')[2].focus()")
    press(page, "1")
    everywhere = all(first in one for one in before)
    wait(page, lambda: all((first in labels(server, name)[0]) != everywhere for name in names))
    files = len(list((server.out / layout.CORRECTIONS).iterdir()))
    press(page, "z")
    wait(page, lambda: [labels(server, name) for name in names] == [(one, None) for one in before])
    assert len(list((server.out / layout.CORRECTIONS).iterdir())) == files + 1, "one file for each action"
    click(page, "#select-all")
    count = int(text(page, "#count").split()[0])
    wait(page, lambda: text(page, "#selected") == f"{count} selected")
    click(page, "#selection [data-do=accept]")
    wait(page, lambda: len([one for one in all_of(page, ".mark") if "accepted" in one.text]) == count)
    click(page, "#undo")
    wait(page, lambda: not all_of(page, ".mark"))


def test_two_tabs_lose_nothing(page: Any, server: Server) -> None:
    query = "SELECT uri FROM labels WHERE len(labels) <= 2 AND contains(uri, '/1') ORDER BY uri LIMIT 1"
    name = Path(open_labels(str(server.out)).sql(query).fetchall()[0][0]).name
    before = model_labels(server, name)
    first, second = [label for label in CLASSES if label not in before][:2]
    mine = page.current_window_handle
    search(page, name, 1)
    page.switch_to.new_window("tab")
    page.get(f"{server.base}/#" + json.dumps({"text": name}))
    wait(page, lambda: text(page, "#count") == "1 image" and all_of(page, ".tile"))
    other = page.current_window_handle
    for handle, label in ((mine, first), (other, second)):
        page.switch_to.window(handle)
        click(page, ".tile .pick")
        box = page.find_element("id", "many-label")
        box.send_keys(label)
        click(page, "#selection [data-do=add]")
    wait(page, lambda: labels(server, name)[0] == before | {first, second})
    for handle in (mine, other):
        page.switch_to.window(handle)
        wait(
            page,
            lambda: all(label in all_of(page, ".tile")[0].get_attribute("aria-label") for label in (first, second)),
        )
    page.close()
    page.switch_to.window(mine)
    for _ in range(2):
        wait(page, lambda: page.find_element("id", "undo").is_enabled())
        press(page, Keys.ESCAPE, "z")
        page.execute_script("document.activeElement.blur()")
    wait(page, lambda: labels(server, name) == (before, None))


def test_a_dragged_threshold_is_what_relabel_does_then(page: Any, server: Server) -> None:
    click(page, ".tile")
    slider = wait(
        page,
        lambda: next(
            (one for one in all_of(page, ".track input") if one.get_attribute("aria-label") == "threshold of cat"), None
        ),
    )
    slider.send_keys(*[Keys.ARROW_RIGHT] * 25)
    wait(page, lambda: text(page, "#preview-heading") == "cat above 0.75 instead of 0.50")
    sentence = wait(page, lambda: text(page, "#preview-text"))
    wait(
        page,
        lambda: page.execute_script(
            "return [...document.querySelectorAll('.strip img')].some((one) => one.naturalWidth > 1)"
        ),
    )
    click(page, "#save-thresholds")
    path = wait(page, lambda: next(iter((server.out / layout.THRESHOLDS).glob("*.yaml")), None))
    assert f"mlcls relabel {server.out} --threshold {path}" in wait(page, lambda: text(page, "#saved code"))
    press(page, Keys.ESCAPE)
    page.execute_script("sessionStorage.clear()")
    relabel(Store(str(server.out)), parse_thresholds([str(path)]), run_id="three")
    cats = "SELECT count(*) FROM labels WHERE list_contains(labels, 'cat')"
    ((after,),) = open_labels(str(server.out)).sql(cats).fetchall()
    assert sentence.startswith(f"{after} images instead of ")
    wait(page, lambda: page.find_element("id", "outdated").is_displayed())
    click(page, "#rebuild")
    wait(
        page,
        lambda: all_of(page, "#run option[value=three]") and not page.find_element("id", "outdated").is_displayed(),
    )
    wait(page, lambda: text(page, "#count") == f"{TOTAL} images")


def test_similar_images(page: Any) -> None:
    tile(page, "008.jpg").click()
    wait(page, lambda: page.find_element("id", "similar").is_displayed())
    click(page, "#similar")
    wait(page, lambda: "similar images" in text(page, "#chips"))
    wait(page, lambda: "008.jpg" in all_of(page, ".tile")[0].get_attribute("aria-label"))


def test_on_a_phone_in_the_dark_and_for_a_screen_reader(page: Any) -> None:
    light = page.execute_script("return getComputedStyle(document.body).backgroundColor")
    page.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    )
    assert page.execute_script("return getComputedStyle(document.body).backgroundColor") != light
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 360, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    )
    try:
        assert page.execute_script("return document.documentElement.scrollWidth") <= 360
        click(page, "#show-filters")
        assert page.find_element("id", "find-label").is_displayed()
        assert page.execute_script("return document.documentElement.scrollWidth") <= 360
        click(page, "#show-filters")
        click(page, ".tile")
        wait(page, lambda: all_of(page, ".classes li"))
        assert page.execute_script("return document.getElementById('viewer').scrollWidth") <= 360
        unnamed = page.execute_script("""
            return [...document.querySelectorAll('input, select, button')].filter((one) =>
                !one.labels?.length && !one.getAttribute('aria-label') && !one.textContent.trim()).map((one) => one.outerHTML)""")
        assert unnamed == [], "each control has a name"
        assert page.execute_script("return [...document.querySelectorAll('h1')].length") == 1
        press(page, Keys.ESCAPE)
        wait(page, lambda: page.execute_script("return document.activeElement.classList.contains('tile')"))
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
