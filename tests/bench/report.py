"""How long a large study's report takes to make and to open, and how large it is.

    python tests/bench/report.py [--configurations 200] [--clips 150]

The study has made-up results and synthetic clips of about 3 s. It is opened in a headless Chromium: the time from the
navigation to the end of `load`, and until the first charts, those in sight, are drawn.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as the command line does

import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.support.browser import chromium, console_messages
from tests.support.study_builder import Plan, random_study
from tmsearch.cli.services.report.study_report import page

DRAWN = """
const done = arguments[0], began = performance.now();
const look = () => {
  const waiting = [...document.querySelectorAll('.plot')].filter((one) => {
    const box = one.getBoundingClientRect();
    return box.top < innerHeight && box.bottom > 0 && !one.querySelector('.point, .bar');
  });
  if (waiting.length && performance.now() - began < 20000) setTimeout(look, 10);
  else done(performance.now());
};
look();
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--configurations", type=int, default=200)
    parser.add_argument("--clips", type=int, default=150)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as kept:
        folder = Path(kept)
        plan = Plan(
            configurations=options.configurations,
            validation=options.clips,
            clips=round(options.clips * 3.5),
            seconds=2.6,
        )
        storage = random_study(folder, plan).storage
        began = time.perf_counter()
        content = page(storage, plan.study)
        print(
            f"{options.configurations} configurations, {options.clips} clips: "
            f"made in {time.perf_counter() - began:.1f} s"
        )
        file = folder / "report.html"
        file.write_bytes(content)
        print(f"{file.stat().st_size / 1e6:.1f} MB")
        for kind, width in (("desk", 1280), ("telephone", 380)):
            with chromium(folder / kind, width) as browser:
                opened(browser, kind, file)


def opened(browser, kind: str, file: Path) -> None:  # type: ignore[no-untyped-def]
    browser.set_script_timeout(60)
    for _ in range(3):
        browser.get(f"file://{file}")
        browser.execute_script("document.querySelector('#curves').scrollIntoView()")
        drawn = browser.execute_async_script(DRAWN) / 1000
        load = browser.execute_script("return performance.getEntriesByType('navigation')[0].loadEventEnd") / 1000
        print(
            f"{kind}: loaded after {load:.2f} s, charts in sight drawn after {drawn:.2f} s; {console_messages(browser)}"
        )


if __name__ == "__main__":
    main()
