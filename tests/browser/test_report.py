"""The report of a real search, and of one of a thousand trials, in a real browser."""

import re
import shutil
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from mgc_ray.models import families
from mgc_ray.reporting.page import write_report
from mgc_ray.results import (
    FAILED,
    PREDICTIONS,
    load_search,
    read_records,
    write_predictions,
)
from tests.many_trials import with_many_trials

pytestmark = pytest.mark.slow
KINDS = 6  # of plots: curves, best so far, importance, settings, confusions, calibration


def errors(chromium: Any) -> list[str]:
    return [line["message"] for line in chromium.get_log("browser") if line["level"] == "SEVERE"]


def draw_all(chromium: Any) -> int:
    """Scroll through the page until all plots are drawn; how many there are."""
    plots = chromium.find_elements(By.CSS_SELECTOR, ".plot")
    for plot in plots:
        chromium.execute_script("arguments[0].scrollIntoView()", plot)
        deadline = time.monotonic() + 60
        while not plot.find_elements(By.CSS_SELECTOR, "svg.main-svg"):
            assert time.monotonic() < deadline, "a plot was not drawn"
            time.sleep(0.05)
    return len(plots)


@pytest.fixture(scope="module")
def page(home: Path) -> Path:
    return home / "results/first/report.html"


@pytest.fixture(scope="module")
def full_page(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of every kind of plot: the same search with 40 trials of the family gru."""
    folder = tmp_path_factory.mktemp("full") / "full"
    with_many_trials(home / "results/first", folder, 40, ["gru"])
    write_report([folder], folder / "report.html")
    return folder / "report.html"


def test_a_search_ends_with_a_page_of_its_figures(chromium: Any, page: Path) -> None:
    chromium.get(page.as_uri())
    metrics = load_search(page.parent).test
    assert metrics is not None
    headline = chromium.find_element(By.CSS_SELECTOR, ".headline").text
    assert f"{metrics.track_accuracy:.1%}" in headline
    low, high = metrics.interval_95.low, metrics.interval_95.high
    assert f"95 % interval {low:.1%} to {high:.1%}" in headline
    assert "protocol grouped" in headline
    text = chromium.find_element(By.TAG_NAME, "main").text
    for heading in ("Families compared", "Learning curves", "Confusion matrix", "Calibration"):
        assert heading in text
    assert "Published baseline" not in text  # the built-in corpus is not GTZAN
    assert "python -m mgc_ray.search --family gru cnn --smoke --name first" in text
    assert draw_all(chromium) >= 4
    assert errors(chromium) == []


def test_the_page_requests_no_other_file(chromium: Any, page: Path) -> None:
    chromium.get(page.as_uri())
    draw_all(chromium)
    requests = chromium.execute_script(
        "return performance.getEntriesByType('resource').map(entry => entry.name)"
    )
    assert [name for name in requests if not name.startswith(("data:", "blob:"))] == []


def test_the_page_works_with_a_keyboard_and_a_screen_reader(chromium: Any, page: Path) -> None:
    chromium.get(page.as_uri())
    chromium.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    focused = chromium.switch_to.active_element
    assert focused.text == "Skip to the figures"
    assert focused.is_displayed()
    draw_all(chromium)
    for plot in chromium.find_elements(By.CSS_SELECTOR, ".plot"):
        assert plot.get_attribute("role") == "img"
        assert len(plot.get_attribute("aria-label")) > 20
    (summary, *_) = chromium.find_elements(By.TAG_NAME, "summary")
    summary.send_keys(Keys.ENTER)
    table = summary.find_element(By.XPATH, "../div/table")
    assert table.is_displayed()
    assert "gru-0000" in table.text
    levels = [
        int(heading.tag_name[1])
        for heading in chromium.find_elements(By.XPATH, "//h1|//h2|//h3|//h4")
    ]
    assert levels[0] == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))


def _ratio(one: str, other: str) -> float:
    """The contrast of two CSS colours, by WCAG 2."""

    def luminance(colour: str) -> float:
        shares = np.array([int(n) for n in re.findall(r"\d+", colour)[:3]]) / 255
        linear = np.where(shares <= 0.03928, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    a, b = sorted((luminance(one), luminance(other)))
    return (b + 0.05) / (a + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_on_light_and_dark_pages(chromium: Any, page: Path, scheme: str) -> None:
    feature = {"name": "prefers-color-scheme", "value": scheme}
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    try:
        chromium.get(page.as_uri())
        draw_all(chromium)
        body = chromium.find_element(By.TAG_NAME, "body")
        ground = body.value_of_css_property("background-color")
        assert (ground == "rgba(255, 255, 255, 1)") == (scheme == "light")
        for selector in ("p.quiet", "figcaption", "a", "h2", "summary"):
            for element in chromium.find_elements(By.CSS_SELECTOR, selector):
                assert _ratio(element.value_of_css_property("color"), ground) >= 4.5, selector
        plot = chromium.find_element(By.CSS_SELECTOR, ".plot .bg")
        assert plot.value_of_css_property("fill") == ground.replace("rgba", "rgb").replace(
            ", 1)", ")"
        )
    finally:
        chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_the_page_fits_a_phone(chromium: Any, full_page: Path) -> None:
    metrics = {"width": 390, "height": 800, "deviceScaleFactor": 2, "mobile": True}
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        chromium.get(full_page.as_uri())
        draw_all(chromium)
        assert chromium.execute_script("return document.documentElement.scrollWidth") <= 390
    finally:
        chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_page_can_be_printed(chromium: Any, full_page: Path) -> None:
    a4 = 718  # its width less usual margins, in CSS pixels
    metrics = {"width": a4, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
    widths = (
        "return [...document.querySelectorAll('.plot')]"
        ".map(plot => plot.querySelector('.main-svg').clientWidth)"
    )
    chromium.get(full_page.as_uri())
    draw_all(chromium)
    before = chromium.execute_script(widths)
    chromium.get(full_page.as_uri())
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        chromium.execute_script("dispatchEvent(new Event('beforeprint'))")
        printed = chromium.execute_script(widths)
        assert printed == [660] * KINDS  # also those that nobody has scrolled to
        too_wide = (
            "return [...document.querySelectorAll('.scroll, pre, body')]"
            ".filter(e => e.getBoundingClientRect().left + e.scrollWidth > innerWidth)"
            ".map(e => e.tagName + ' ' + (e.ariaLabel ?? '') + ' ' + e.scrollWidth)"
        )
        assert chromium.execute_script(too_wide) == []
    finally:
        chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
        chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    chromium.execute_script("dispatchEvent(new Event('afterprint'))")
    assert chromium.execute_script(widths) == before
    assert max(before) == 1000  # panels of settings, to be scrolled on a narrow screen
    assert errors(chromium) == []


def test_a_thousand_trials_of_all_families_are_on_one_page(
    chromium: Any, home: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "many"
    with_many_trials(home / "results/first", folder, 1000, families())
    page = folder / "report.html"
    write_report([folder], page)
    assert page.stat().st_size < 10e6
    started = time.monotonic()
    chromium.get(page.as_uri())
    assert time.monotonic() - started < 10  # 2 on a quiet machine: tests/benchmarks/report.py
    assert draw_all(chromium) == KINDS - 1 + len(families())
    text = chromium.find_element(By.TAG_NAME, "main").text
    assert re.search(r"trials: 1000 \(\d+ completed, 10 failed, \d+ stopped early\)", text)
    for family in families():
        assert f"Settings of {family}" in text
    assert "the loss is NaN" in text
    # a browser gives a page few WebGL contexts, or none
    assert chromium.find_elements(By.CSS_SELECTOR, ".plot canvas") == []
    assert errors(chromium) == []


def test_names_of_strangers_run_no_script(chromium: Any, home: Path, tmp_path: Path) -> None:
    evil = (
        "</script><script>document.title='evil'</script><img src=x onerror=document.title='evil'>"
    )
    folder = tmp_path / "evil"
    shutil.copytree(home / "results/first", folder)
    result = load_search(folder)
    table = result.predictions
    predictions = tuple(
        replace(
            one, track_id=[f"{evil}{track}" for track in one.track_id], group=[evil] * len(one.true)
        )
        for one in table.predictions
    )
    write_predictions(folder / PREDICTIONS, replace(table, predictions=predictions))
    replace(result, tracks=evil, command=evil).write()
    for record in read_records(folder / "trials"):
        changed = replace(record, params=record.params | {"evil": evil}, reason=evil, status=FAILED)
        changed.write(folder / "trials" / record.trial)
    write_report([folder], tmp_path / "evil.html")
    chromium.get((tmp_path / "evil.html").as_uri())
    draw_all(chromium)
    assert chromium.title.startswith("evil – mgc_ray")  # the folder's name
    assert "document.title" in chromium.find_element(By.TAG_NAME, "main").text
    assert errors(chromium) == []
