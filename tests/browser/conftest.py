"""A headless Chromium; tests that need it are skipped where there is none."""

import shutil
from collections.abc import Iterator

import pytest

selenium = pytest.importorskip("selenium", reason="selenium is not installed")


@pytest.fixture(scope="session")
def chromium() -> Iterator["selenium.webdriver.Chrome"]:
    """One browser for all tests; `get_log("browser")` has the errors of pages."""
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not program or not driver:
        pytest.skip("chromium and chromedriver (Debian's chromium-driver) are not installed")
    from selenium.webdriver import Chrome
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = program
    for argument in (
        "--headless=new",
        "--no-sandbox",  # as root in a container
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=1200,900",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = Chrome(options, Service(driver))
    browser.set_page_load_timeout(120)
    try:
        yield browser
    finally:
        browser.quit()
