"""A headless Chromium, and what tests of pages do with it. Needs selenium."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from selenium.webdriver import Chrome
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By


@contextmanager
def chrome() -> Iterator[Chrome]:
    """A browser with a new profile; `get_log("browser")` has the errors of pages."""
    options = Options()
    options.binary_location = str(shutil.which("chromium"))
    for argument in (
        "--headless=new",
        "--no-sandbox",  # as root in a container
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=1200,900",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = Chrome(options, Service(shutil.which("chromedriver")))
    browser.set_page_load_timeout(120)
    try:
        yield browser
    finally:
        browser.quit()


def draw_all(browser: Any) -> int:
    """Scroll through a report until all plots are drawn; how many there are."""
    plots = browser.find_elements(By.CSS_SELECTOR, ".plot")
    for plot in plots:
        browser.execute_script("arguments[0].scrollIntoView()", plot)
        deadline = time.monotonic() + 60
        while not plot.find_elements(By.CSS_SELECTOR, "svg.main-svg"):
            assert time.monotonic() < deadline, "a plot was not drawn"
            time.sleep(0.05)
    return len(plots)


@contextmanager
def shown_as(browser: Any, width: int, scheme: str = "light") -> Iterator[None]:
    """A window of this width, light or dark."""
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    try:
        yield
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
