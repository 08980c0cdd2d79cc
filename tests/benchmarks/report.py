"""How long a report of many trials takes to write and to open in Chromium, and how large it is.

    PYTHONPATH=. python tests/benchmarks/report.py results/gru-001 --trials 1000

RESULTS is any finished search; the trials are made up (tests/many_trials.py), the rest is its own.
Opened: from asking for the page to its load event, with the first plot drawn; each time in a new
browser profile.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from selenium.webdriver import Chrome
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

from mgc_ray.reporting.page import write_report
from tests.many_trials import with_many_trials


def opened(page: Path) -> tuple[float, float]:
    """Seconds to the load event, and until a first plot was drawn after it came into view."""
    options = Options()
    options.binary_location = str(shutil.which("chromium"))
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    browser = Chrome(options, Service(shutil.which("chromedriver")))
    try:
        browser.get("about:blank")
        started = time.monotonic()
        browser.get(page.as_uri())
        loaded = time.monotonic()
        plot = browser.find_element(By.CSS_SELECTOR, ".plot")
        browser.execute_script("arguments[0].scrollIntoView()", plot)
        scrolled = time.monotonic()
        while not plot.find_elements(By.CSS_SELECTOR, "svg.main-svg"):
            time.sleep(0.01)
        return loaded - started, time.monotonic() - scrolled
    finally:
        browser.quit()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("search", type=Path)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--times", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "many"
        with_many_trials(args.search, folder, args.trials)
        started = time.monotonic()
        write_report([folder], folder / "report.html")
        written = time.monotonic() - started
        size = (folder / "report.html").stat().st_size
        times = [opened(folder / "report.html") for _ in range(args.times)]
    print(f"{args.trials} trials: written in {written:.1f} s, {size / 1e6:.1f} MB")
    for what, seconds in zip(("opened", "first plot"), zip(*times, strict=True), strict=True):
        middle = statistics.median(seconds)
        print(
            f"{what}: median {middle:.2f} s ({min(seconds):.2f} to {max(seconds):.2f}, "
            f"n = {len(seconds)})"
        )


if __name__ == "__main__":
    main()
