"""The report of a real search, and of one of a thousand trials, in a real browser."""

import re
import shutil
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

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
from tests.browser.chrome import draw_all, shown_as
from tests.many_trials import with_many_trials

pytestmark = pytest.mark.slow
KINDS = 3  # of plots: curves, best so far, settings; its test part is too small for calibration

# the contrast of all text that is shown, by WCAG 2: where it is below 4.5
CONTRASTS = """
const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
const rgba = colour => {
  canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data];
};
const ground = element => {
  for (let e = element; e; e = e.parentElement) {
    const colour = rgba(getComputedStyle(e).backgroundColor);
    if (colour[3] === 255) return colour;
  }
};
const luminance = colour => colour.slice(0, 3).map(n => n / 255)
  .map(n => n <= 0.03928 ? n / 12.92 : ((n + 0.055) / 1.055) ** 2.4)
  .reduce((sum, n, i) => sum + n * [0.2126, 0.7152, 0.0722][i], 0);
const shown = [], low = [];
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (texts.nextNode()) {
  const element = texts.currentNode.parentElement, text = texts.currentNode.data.trim();
  if (!text || !element.checkVisibility() || element.closest("script, style")) continue;
  const style = getComputedStyle(element), svg = element.closest("svg");
  const below = ground(element);
  const [light, dark] = [luminance(rgba(svg ? style.fill : style.color)), luminance(below)]
    .sort((a, b) => b - a);
  const ratio = (light + 0.05) / (dark + 0.05);
  shown.push(text);
  if (ratio < 4.5) low.push(`${text.slice(0, 40)} (${element.tagName}): ${ratio.toFixed(2)}`);
}
return [shown.length, low];
"""

# what is not within the page, or of a plot's text not within the plot
CUT_OFF = """
const cut = [];
const shown = "h1, h2, h3, h4, p, dt, dd, li, th, td, pre, summary, audio, svg text";
for (const element of document.querySelectorAll(shown)) {
  const svg = element.closest("svg.main-svg"), box = element.getBoundingClientRect();
  if (!element.checkVisibility() || !box.width || element.closest(".skip, thead")) continue;
  const frame = svg ? svg.getBoundingClientRect() : { left: 0, right: innerWidth };
  if (box.left < frame.left - 1 || box.right > frame.right + 1)
    cut.push(`${element.tagName} ${element.textContent.slice(0, 40)}: ${box.left} to ${box.right}`);
}
for (const element of document.querySelectorAll(".scroll, pre, .headline"))
  if (element.scrollWidth > element.clientWidth) cut.push(`${element.className} is too wide`);
return cut;
"""


def errors(chromium: Any) -> list[str]:
    return [line["message"] for line in chromium.get_log("browser") if line["level"] == "SEVERE"]


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
    assert "grouped – all songs of a known artist" in headline
    text = chromium.find_element(By.TAG_NAME, "main").text
    for heading in (
        *("Genres", "Confusion matrix", "Mistakes to listen to", "Data and split"),
        *("Trials and settings", "Learning curves", "Families compared", "Repeat this search"),
    ):
        assert heading in text
    assert "Too few songs for calibration" in text
    assert "Published baseline" not in text  # the built-in corpus is not GTZAN
    assert "python -m mgc_ray.search --family gru cnn --smoke --name first" in text
    assert draw_all(chromium) >= 2
    assert len(chromium.find_elements(By.CSS_SELECTOR, "audio[src^='data:audio/mpeg']")) == 10
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


def open_all(chromium: Any) -> None:
    """Show the content of each <details>."""
    chromium.execute_script("document.querySelectorAll('details').forEach(one => one.open = true)")
    time.sleep(0.3)  # until the tables have been fitted


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 500])
def test_all_text_can_be_read(
    chromium: Any, page: Path, full_page: Path, scheme: str, width: int
) -> None:
    with shown_as(chromium, width, scheme):
        for one in (page, full_page):
            chromium.get(one.as_uri())
            ground = chromium.find_element(By.TAG_NAME, "body").value_of_css_property(
                "background-color"
            )
            assert (ground == "rgba(255, 255, 255, 1)") == (scheme == "light")
            open_all(chromium)
            draw_all(chromium)
            texts, low = chromium.execute_script(CONTRASTS)
            assert texts > 300
            assert low == []


def test_plots_follow_when_the_page_becomes_dark(chromium: Any, page: Path) -> None:
    ground = "return getComputedStyle(document.querySelector('.plot .main-svg')).backgroundColor"
    with shown_as(chromium, 1200):
        chromium.get(page.as_uri())
        draw_all(chromium)
        assert chromium.execute_script(ground) == "rgb(255, 255, 255)"
        feature = {"name": "prefers-color-scheme", "value": "dark"}
        chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        deadline = time.monotonic() + 10
        while chromium.execute_script(ground) != "rgb(20, 24, 31)":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        _, low = chromium.execute_script(CONTRASTS)
        assert low == []


@pytest.mark.parametrize("width", [1200, 800, 500, 390])
def test_nothing_is_cut_off(chromium: Any, page: Path, full_page: Path, width: int) -> None:
    with shown_as(chromium, width):
        for one in (page, full_page):
            chromium.get(one.as_uri())
            open_all(chromium)
            draw_all(chromium)
            assert chromium.execute_script("return document.documentElement.scrollWidth") <= width
            assert chromium.execute_script(CUT_OFF) == []


def test_a_table_that_is_too_wide_becomes_one_block_per_row(chromium: Any, page: Path) -> None:
    stacked = "return [...document.querySelectorAll('.stacked')].map(table => table.ariaLabel)"
    label = "return getComputedStyle(document.querySelector('.stacked td'), '::before').content"
    with shown_as(chromium, 500):
        chromium.get(page.as_uri())
        assert any("test tracks are wrong" in name for name in chromium.execute_script(stacked))
        assert chromium.execute_script(label) == '"artist (group)"'
    chromium.get(page.as_uri())
    assert chromium.execute_script(stacked) == []


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
    assert max(before) > 660
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
    assert re.search(r"\d+ completed, \d+ stopped early by ASHA, 10 failed\.", text)
    assert "1000 trials of attention, cnn, discriminant" in text
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
