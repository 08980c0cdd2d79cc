"""How long a report of many trials takes to write and to open in Chromium, and how large it is.

    PYTHONPATH=. python tests/benchmarks/report.py results/gru-001 --trials 1000

RESULTS is any finished search; its trials are replaced by random ones (tests/many_trials.py).
Opened: from requesting the page to its load event; first plot: from scrolling to it until it is
drawn. Each time in a new browser profile.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from selenium.webdriver.common.by import By

from mgc_ray.reporting.page import write_report
from tests.browser.chrome import chrome
from tests.many_trials import with_many_trials


def open_page(page: Path) -> tuple[float, float]:
    """Seconds to the load event, and from scrolling to the first plot until it is drawn."""
    with chrome() as browser:
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("search", type=Path)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--times", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "many"
        with_many_trials(args.search, folder, args.trials)
        started = time.monotonic()
        write_report([folder], folder / "report.html")
        written = time.monotonic() - started
        size = (folder / "report.html").stat().st_size
        times = [open_page(folder / "report.html") for _ in range(args.times)]
    print(f"{args.trials} trials: written in {written:.1f} s, {size / 1e6:.1f} MB")
    for what, seconds in zip(("opened", "first plot"), zip(*times, strict=True), strict=True):
        print(
            f"{what}: median {statistics.median(seconds):.2f} s "
            f"({min(seconds):.2f} to {max(seconds):.2f}, n = {len(seconds)})"
        )


if __name__ == "__main__":
    main()
