"""Write docs/images/report-light.png and report-dark.png: the top of a search's report.

    PYTHONPATH=. python tests/make_images.py results/NAME

Needs chromium and chromedriver.
"""

import argparse
import base64
import io
import tempfile
from pathlib import Path

from PIL import Image

from mgc_ray.reporting.page import write_report
from tests.browser.chrome import chrome, draw_all, shown_as

IMAGES = Path("docs/images")
WIDTH = 1000  # pixels
COLOURS = 128  # which halves the files
LAST = ".matrix"  # what the picture ends with


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("search", type=Path)
    search = parser.parse_args().search
    IMAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary, chrome() as browser:
        page = Path(temporary) / "report.html"
        write_report([search], page)
        for scheme in ("light", "dark"):
            with shown_as(browser, WIDTH, scheme):
                browser.get(page.as_uri())
                draw_all(browser)
                end = f"document.querySelector('{LAST}').getBoundingClientRect().bottom + scrollY"
                height = browser.execute_script(f"return {end}") + 20
                clip = {"x": 0, "y": 0, "width": WIDTH, "height": height, "scale": 1}
                picture = browser.execute_cdp_cmd(
                    "Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True}
                )
                path = IMAGES / f"report-{scheme}.png"
                image = Image.open(io.BytesIO(base64.b64decode(picture["data"])))
                image.convert("RGB").quantize(COLOURS).save(path, optimize=True)
                print(path, f"{path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
