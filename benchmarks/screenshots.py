"""The pictures of the report in ``docs/report.md``: a run of the demo in headless Chromium, in light and in dark colours.

    make demo
    python -m benchmarks.screenshots demo/run

The images of the demo are simulated. Chromium is Debian's package ``chromium``; ``--browser`` names another one.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from benchmarks.command import start
from benchmarks.pages import ROOT
from biomedcoop.errors import UserError
from biomedcoop.output import write_atomically

IMAGES = ROOT / "docs" / "images"
MOST_BYTES = 140_000
LIGHT, DARK = "1", "0"
"""Values of Chromium's setting ``preferredColorScheme``."""
VIEWS = {"report-light": ("", LIGHT, 960, 840), "report-dark": ("errors", DARK, 1160, 760)}
"""The section that is shown alone (else the start of the page), colours, width and height of each picture, px."""
ALONE = "<style>header, nav, footer, section:not(#{}) {{ display: none }}</style></head>"
WAIT = 120
"""Longest time of the browser, s."""


def screenshot(browser: str, page: Path, section: str, colours: str, size: tuple[int, int]) -> Image.Image:
    """The window of a browser that shows a page, or one section of it.

    Raises:
        UserError: there is no such browser, or it gives no picture.
    """
    with tempfile.TemporaryDirectory() as folder:
        shown, picture = Path(folder) / "page.html", Path(folder) / "page.png"
        text = page.read_text(encoding="utf-8")
        # a headless browser pictures the start of a page, wherever it has scrolled to
        shown.write_text(text.replace("</head>", ALONE.format(section), 1) if section else text, encoding="utf-8")
        words = [
            *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage"),
            *(f"--user-data-dir={folder}/profile", f"--blink-settings=preferredColorScheme={colours}"),
            *(f"--window-size={size[0]},{size[1]}", f"--screenshot={picture}", shown.as_uri()),
        ]
        try:
            subprocess.run(words, check=True, capture_output=True, timeout=WAIT)
        except (OSError, subprocess.SubprocessError) as error:
            raise UserError(f"{browser} gives no picture ({error}); name Chromium with --browser") from error
        with Image.open(picture) as image:
            return image.convert("RGB")


def jpeg(image: Image.Image) -> bytes:
    """The picture as JPEG of the best quality that is not too large."""
    for quality in range(90, 20, -5):
        content = io.BytesIO()
        image.save(content, "JPEG", quality=quality, optimize=True)
        if content.tell() <= MOST_BYTES:
            break
    return content.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder of simulated images, such as demo/run")
    parser.add_argument("--browser", default="chromium", help="the program of the browser")
    parser.add_argument("--out", type=Path, default=IMAGES, help="folder to write to")
    args = parser.parse_args()
    try:
        simulated = json.loads((args.run / "metrics.json").read_text(encoding="utf-8"))["simulated"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{args.run} is no run folder ({error}); give the demo's, which 'make demo' writes") from error
    if not simulated:
        raise UserError(
            f"{args.run}: its images are not simulated, so they are not shown here; give the demo's run folder"
        )
    for name, (section, colours, width, height) in VIEWS.items():
        content = jpeg(screenshot(args.browser, args.run / "report.html", section, colours, (width, height)))
        write_atomically(args.out / f"{name}.jpg", content)
        print(f"{args.out / name}.jpg: {len(content) / 1000:.0f} kB", file=sys.stderr)


if __name__ == "__main__":
    start(main)
