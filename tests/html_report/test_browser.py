"""The page in a browser: drawn, read with pointer and keyboard, wide and narrow.

Needs Chromium and its driver, which CI installs on Debian; skipped where there are none.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

from tests.html_report.made_up import made_up_scores, made_up_strips, page_of

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")

pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no Chromium with chromedriver is installed"
)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("page")
    path = folder / "report.html"
    page = page_of(made_up_scores(), folder, strips=made_up_strips())
    path.write_text(page, encoding="utf-8")
    return path.as_uri()


@pytest.fixture(scope="module")
def chromium() -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    flags = ("headless", "no-sandbox", "disable-gpu", "no-first-run")
    for flag in (*flags, "disable-background-networking", "disable-component-update"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    options.binary_location = CHROMIUM or ""
    driver = webdriver.Chrome(options, Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def browser(chromium: webdriver.Chrome, address: str) -> Iterator[webdriver.Chrome]:
    resize(chromium, 1400)
    chromium.get(address)
    yield chromium
    assert chromium.get_log("browser") == []  # neither errors nor refused requests


def resize(browser: webdriver.Chrome, width: int) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1}
    size["mobile"] = width < 600
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def found(browser: webdriver.Chrome, selector: str) -> list[Any]:
    return browser.find_elements(By.CSS_SELECTOR, selector)


def pick(browser: webdriver.Chrome, name: str, value: str) -> None:
    Select(browser.find_element(By.ID, name)).select_by_value(value)


def test_a_panel_for_every_reward_and_a_curve_for_every_method(
    browser: webdriver.Chrome,
) -> None:
    titles = [e.text for e in found(browser, "#panels figcaption")]
    assert titles[:2] == ["aesthetic-mini trained", "gold_taste its gold"]
    assert len(titles) == 8
    assert len(found(browser, "#panels .curve")) == 8 * 2
    assert len(found(browser, "#panels .band")) == 8 * 2


def test_the_pointer_reads_numbers_off(browser: webdriver.Chrome) -> None:
    tip = browser.find_element(By.ID, "tip")
    assert not tip.is_displayed()
    # Of the gold's panel: the last point of the lower curve, DDPO-2.
    point = found(browser, "#panels figure:nth-of-type(2) polygon[points]")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", point[0])
    marks = [e for e in point if e.get_attribute("class") != "band"]
    last = max(marks, key=lambda e: e.rect["y"])
    ActionChains(browser).move_to_element(last).perform()
    assert tip.is_displayed()
    lines = tip.text.splitlines()
    assert lines[0] == "DDPO-2"
    assert lines[1].startswith("gold_taste −")
    assert lines[2] == "epoch 8, 1,024 reward queries, KL 2"
    assert lines[3] == "2 seeds, 3 prompts, 12 images"


def test_the_keyboard_reads_numbers_off(browser: webdriver.Chrome) -> None:
    panel = found(browser, "#panels svg[role=img]")[0]
    browser.find_element(By.CSS_SELECTOR, "#legend button:last-child").send_keys(
        Keys.TAB
    )
    assert browser.switch_to.active_element == panel
    tip = browser.find_element(By.ID, "tip")
    assert "epoch 0" in tip.text
    panel.send_keys(Keys.ARROW_RIGHT)
    assert "epoch 4" in tip.text
    assert tip.text.startswith("DDPO-2")
    panel.send_keys(Keys.ARROW_DOWN)
    assert tip.text.startswith("TDPO-R")
    panel.send_keys(Keys.ESCAPE)
    assert not tip.is_displayed()


def test_methods_and_prompts_are_picked(browser: webdriver.Chrome) -> None:
    button = found(browser, "#legend button")[0]
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    assert len(found(browser, "#panels .curve")) == 8
    pick(browser, "group", "unseen")
    assert {row.text for row in found(browser, "#prompt-table tbody th")} == {"snail"}


def test_over_the_trained_reward(browser: webdriver.Chrome) -> None:
    pick(browser, "along", "trained")
    trained = found(browser, "#panels figure:first-of-type .curve")[0]
    points = [p.split(",") for p in trained.get_attribute("points").split()]
    # Against itself a reward is a straight line.
    x, y = ([float(p[i]) for p in points] for i in (0, 1))
    slopes = [(y[i + 1] - y[i]) / (x[i + 1] - x[i]) for i in range(len(x) - 1)]
    assert slopes == pytest.approx([slopes[0]] * len(slopes))


def test_the_front_leaves_out_what_is_beaten_in_both(browser: webdriver.Chrome) -> None:
    # Trained reward and gold, about: DDPO-2 (0, 0) (1, 1) (2, -2), TDPO-R (0, 0) (1, 1)
    # (1.5, 2). TDPO-R's last beats all but DDPO-2's last, which has the most reward.
    assert len(found(browser, "#front .ring")) == 2


def test_headings_sort_the_prompts(browser: webdriver.Chrome) -> None:
    def column() -> list[float]:
        cells = found(browser, "#prompt-table tbody td:nth-of-type(3)")
        return [float(cell.text.replace("−", "-")) for cell in cells]

    button = browser.find_element(By.ID, "sort-gold_taste")
    button.click()
    assert column() == sorted(column())
    assert len(column()) == 3 * 2
    heading = browser.find_element(By.CSS_SELECTOR, "th[aria-sort=ascending]")
    assert heading.text.startswith("gold_taste")
    browser.switch_to.active_element.click()
    assert column() == sorted(column(), reverse=True)


@pytest.mark.parametrize("width", [1400, 400])
def test_only_tables_and_strips_scroll_sideways(
    browser: webdriver.Chrome, width: int
) -> None:
    resize(browser, width)
    root = "document.documentElement"
    wide, room = browser.execute_script(
        f"return [{root}.scrollWidth, {root}.clientWidth]"
    )
    assert wide == room


def test_text_stands_out_in_light_and_dark(browser: webdriver.Chrome) -> None:
    for scheme in ("light", "dark"):
        media = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
        page = color(browser, "body", "background-color")
        for selector in ("body", ".note", "nav a", "#legend button", "caption"):
            text = color(browser, selector, "color")
            assert contrast(text, page) >= 4.5, (scheme, selector)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def color(browser: webdriver.Chrome, selector: str, kind: str) -> list[float]:
    value = found(browser, selector)[0].value_of_css_property(kind)
    return [
        float(part) / 255 for part in value.split("(")[1].rstrip(")").split(",")[:3]
    ]


def contrast(one: list[float], other: list[float]) -> float:
    """Contrast of two colours as WCAG 2 defines it."""

    def luminance(rgb: list[float]) -> float:
        linear = [
            c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb
        ]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted([luminance(one), luminance(other)], reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_everything_is_open_in_print(browser: webdriver.Chrome) -> None:
    assert found(browser, "#summary details:not([open])")
    pdf = browser.execute_cdp_cmd("Page.printToPDF", {})
    assert pdf["data"].startswith("JVBERi")  # "%PDF"
    assert not found(browser, "#summary details:not([open])")


def test_every_picture_has_words(browser: webdriver.Chrome) -> None:
    unnamed = [e for e in found(browser, "img") if not e.get_attribute("alt")]
    unnamed += [
        e for e in found(browser, "svg[role=img]") if not e.get_attribute("aria-label")
    ]
    assert not unnamed
    assert all(
        e.get_property("naturalWidth") > 0 for e in found(browser, "details[open] img")
    )
