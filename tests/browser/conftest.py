"""A headless Chromium; tests that need it are skipped where there is none."""

import shutil
from collections.abc import Iterator

import pytest

selenium = pytest.importorskip("selenium", reason="selenium is not installed")


@pytest.fixture(scope="session")
def chromium() -> Iterator["selenium.webdriver.Chrome"]:
    """One browser for all tests."""
    if not shutil.which("chromium") or not shutil.which("chromedriver"):
        pytest.skip("chromium and chromedriver (Debian's chromium-driver) are not installed")
    from tests.browser.chrome import chrome

    with chrome() as browser:
        yield browser
