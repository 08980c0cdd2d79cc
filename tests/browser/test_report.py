"""The report of a real search, and of one of a thousand trials, in a real browser."""

import json
import re
import shutil
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from mgc_ray.reporting.page import write_report
from tests.commands import command
from tests.many_trials import with_many_trials

MANY = 1000


def complaints(chromium: Any) -> list[str]:
    return [line["message"] for line in chromium.get_log("browser") if line["level"] == "SEVERE"]


def look_at_all(chromium: Any) -> int:
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


def test_a_search_ends_with_a_page_that_says_its_figures(chromium: Any, page: Path) -> None:
    chromium.get(page.as_uri())
    content = json.loads((page.parent / "search.json").read_text())
    figures = content["ensemble"]["test"]
    headline = chromium.find_element(By.CSS_SELECTOR, ".headline").text
    assert f"{figures['track_accuracy']:.1%}" in headline
    low, high = figures["interval_95"]["low"], figures["interval_95"]["high"]
    assert f"95 % interval {low:.1%} to {high:.1%}" in headline
    assert "protocol grouped" in headline
    text = chromium.find_element(By.TAG_NAME, "main").text
    for heading in ("Families compared", "Learning curves", "Confusion matrix", "Calibration"):
        assert heading in text
    assert "Published baseline on GTZAN, LEAKY, not comparable" in text
    assert "CNN+GRU\n91.29" in text or "CNN+GRU 91.29" in text
    assert "python -m mgc_ray.search --family gru cnn --smoke --name first" in text
    assert look_at_all(chromium) >= 4
    assert complaints(chromium) == []


def test_the_page_asks_for_nothing_but_itself(chromium: Any, page: Path) -> None:
    chromium.get(page.as_uri())
    look_at_all(chromium)
    asked = chromium.execute_script(
        "return performance.getEntriesByType('resource').map(entry => entry.name)"
    )
    assert [name for name in asked if not name.startswith(("data:", "blob:"))] == []


def test_the_page_can_be_used_by_keyboard_and_read_aloud(chromium: Any, page: Path) -> None:
    chromium.get(page.as_uri())
    chromium.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    focused = chromium.switch_to.active_element
    assert focused.text == "Skip to the figures"
    assert focused.is_displayed()
    look_at_all(chromium)
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
        look_at_all(chromium)
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


def test_the_page_fits_a_telephone(chromium: Any, page: Path) -> None:
    metrics = {"width": 390, "height": 800, "deviceScaleFactor": 2, "mobile": True}
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        chromium.get(page.as_uri())
        look_at_all(chromium)
        assert chromium.execute_script("return document.documentElement.scrollWidth") <= 390
    finally:
        chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_page_can_be_printed(chromium: Any, page: Path) -> None:
    a4 = 718  # its width less usual margins, in CSS pixels
    metrics = {"width": a4, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
    widths = "return [...document.querySelectorAll('.plot')].map(p => p.plot.offsetWidth)"
    chromium.get(page.as_uri())
    look_at_all(chromium)
    before = chromium.execute_script(widths)
    chromium.get(page.as_uri())
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        chromium.execute_script("dispatchEvent(new Event('beforeprint'))")
        assert len(chromium.execute_script(widths)) >= 4  # also those that nobody has scrolled to
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
    assert complaints(chromium) == []


@pytest.fixture(scope="module")
def large(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real search with the records of a thousand trials of two families in place of its own."""
    folder = tmp_path_factory.mktemp("large") / "large"
    with_many_trials(home / "results/first", folder, MANY)
    write_report([folder], folder / "report.html")
    return folder / "report.html"


def test_a_thousand_trials_open_at_once_and_are_all_there(chromium: Any, large: Path) -> None:
    assert large.stat().st_size < 10e6
    started = time.monotonic()
    chromium.get(large.as_uri())
    seconds = time.monotonic() - started
    assert seconds < 10  # 2 on a quiet machine: tests/benchmarks/report.py
    assert look_at_all(chromium) >= 5
    text = chromium.find_element(By.TAG_NAME, "main").text
    assert "trials: 1000 (100 completed, 10 failed, 890 stopped early)" in text or "1000 (" in text
    assert "Settings of gru" in text
    assert "the loss is NaN" in text
    assert complaints(chromium) == []


def test_names_from_strangers_cannot_run_anything(
    chromium: Any, home: Path, tmp_path: Path
) -> None:
    evil = (
        "</script><script>document.title='evil'</script><img src=x onerror=document.title='evil'>"
    )
    folder = tmp_path / "evil"
    shutil.copytree(home / "results/first", folder)
    path = folder / "ensemble/predictions.csv"
    path.write_text(path.read_text().replace("rock.0", f'"{evil}"'.replace('"', "") + ".0"))
    content = json.loads((folder / "search.json").read_text())
    content["tracks"] = content["command"] = evil
    (folder / "search.json").write_text(json.dumps(content))
    for record in folder.glob("trials/*/trial.json"):
        trial = json.loads(record.read_text())
        trial["params"]["evil"] = evil
        trial["reason"], trial["status"] = evil, "failed"
        record.write_text(json.dumps(trial))
    write_report([folder], tmp_path / "evil.html")
    chromium.get((tmp_path / "evil.html").as_uri())
    look_at_all(chromium)
    assert chromium.title.startswith("evil – mgc_ray")  # the folder's name
    assert "document.title" in chromium.find_element(By.TAG_NAME, "main").text


def test_an_unfinished_search_has_a_page_too(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "running"
    shutil.copytree(home / "results/first", folder)
    content = json.loads((folder / "search.json").read_text())
    del content["ensemble"]
    (folder / "search.json").write_text(json.dumps(content | {"finished": False}))
    done = command("report", folder, "--out", "page.html", cwd=tmp_path)
    assert "running has not come to its end: it is in no table of families" in done.stderr
    text = (tmp_path / "page.html").read_text()
    assert "This search has not come to its end" in text
    assert "Learning curves" in text


def test_what_is_no_search_is_refused(tmp_path: Path) -> None:
    done = command("report", tmp_path, "--out", "page.html", cwd=tmp_path, status=2)
    assert "is no search: search.json is missing" in done.stderr
    assert not (tmp_path / "page.html").exists()
