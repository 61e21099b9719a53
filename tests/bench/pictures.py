"""The README's pictures, from a search on the demo: terminal, report, dashboard. Needs chromium and chromium-driver.

    python tests/bench/pictures.py [--folder DIR] [--out studies/pictures]

A search of 16 configurations is run in DIR, or gone on with, then its confirmation of two seeds.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from PIL import Image
from rich.console import Console
from rich.text import Text

from tests.support.browser import chromium

COLOURS = 128  # of a picture: enough for a page of few
WIDTH, HEIGHT = 1280, 860
CLIPS = "document.querySelector('#listen').scrollIntoView()"
# Past the note, to what lies beside it to look at and to hear.
EXHIBITS = """
[...document.querySelectorAll('h5, h6')].find((one) => one.textContent === 'Artifacts').scrollIntoView()
"""


def tmsearch(folder, *words, colour=False):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80"}
    if colour:
        environment["FORCE_COLOR"] = "1"
    command = [sys.executable, "-m", "tmsearch", *words]
    return subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True).stdout


def terminal(printed, title):
    """An SVG of what a terminal shows; its fonts are the reader's own, so that the picture asks no network."""
    console = Console(record=True, width=80, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(printed))
    return re.sub(r"@font-face \{.*?\}", "", console.export_svg(title=title), flags=re.DOTALL)


def keep(data, file):
    image = Image.open(io.BytesIO(data)).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    image.save(file, optimize=True)
    print(f"{file}: {image.width} x {image.height}, {file.stat().st_size / 1000:.0f} kB")


def best(folder):
    return json.loads(tmsearch(folder, "best", "demo", "--json"))["number"]


@contextmanager
def dashboard(folder):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tmsearch", "dashboard", "--port", "0"]
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        yield re.search(r"http://\S+/", process.stdout.readline())[0]
    finally:
        process.terminate()
        process.wait()


def shot(browser, address, wait=2.0, script=""):
    browser.get(address)
    time.sleep(wait)  # charts are drawn when they come into sight
    if script:
        browser.execute_script(script)
        time.sleep(wait)
    return browser.get_screenshot_as_png()


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--out", type=Path, default=ROOT / "studies" / "pictures")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as kept:
        folder = options.folder or Path(kept)
        tmsearch(folder, "run", "--space", str(ROOT / "spaces" / "demo.yaml"), "--trials", "16")
        tmsearch(folder, "confirm", "demo", "--top", "2", "--seeds", "2")
        tmsearch(folder, "report", "demo", "-o", "report.html")
        (folder / "status.svg").write_text(
            terminal(tmsearch(folder, "status", "demo", colour=True), "tmsearch status demo"), encoding="utf-8"
        )
        with chromium(Path(kept) / "profile", WIDTH, HEIGHT) as browser:
            browser.get((folder / "status.svg").absolute().as_uri())
            keep(browser.find_element("tag name", "svg").screenshot_as_png, options.out / "terminal.png")
            page = (folder / "report.html").absolute().as_uri()
            keep(shot(browser, page), options.out / "report.png")
            keep(shot(browser, page, script=CLIPS), options.out / "clips.png")
            with dashboard(folder) as address:
                keep(shot(browser, f"{address}dashboard/studies/1", wait=4.0), options.out / "dashboard.png")
                trial = f"{address}dashboard/studies/1/trials?numbers={best(folder)}"
                keep(shot(browser, trial, wait=4.0, script=EXHIBITS), options.out / "trial.png")


if __name__ == "__main__":
    main()
