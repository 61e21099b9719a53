"""What commands, draws, claims and publishing take in a long study: one table.

    python tests/bench/scale.py [--configurations 2000] [--clips 500] [--only status list report draw claim ...]

The study is made up, on a SQLite file: every configuration has eight rungs, every result its errors by clip. Each row
is a process of its own (draws and claims are timed within one): seconds on the clock, seconds of CPU, which other work
on the machine moves less, the resident memory of its largest process at the most, and that of all its processes
together, shared pages counted once (sampled). Publishing is without notes: those are made by another process, a trial
at a time.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
COMMANDS = {"status": ["status", "large"], "list": ["list"], "report": ["report", "large"]}
PARTS = ("draw", "claim", "publish", "supervisor")
PROGRAM = str(Path(__file__).resolve().with_name("scale_parts.py"))


class MemoryWatch(threading.Thread):
    """Samples what a process and its descendants hold; `peak` is in MB, shared pages counted once."""

    def __init__(self, process: int) -> None:
        super().__init__(daemon=True)
        self.peak = 0.0
        self._process = process
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(0.05):
            self.peak = max(self.peak, self._held(self._process))

    def end(self) -> None:
        self._ended.set()
        self.join()

    def _held(self, process: int) -> float:
        folder = Path("/proc", str(process))
        try:
            rollup = (folder / "smaps_rollup").read_text()
            children = [child for task in folder.glob("task/*/children") for child in task.read_text().split()]
        except OSError:  # it has ended
            return 0.0
        own = sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
        return own / 1024 + sum(self._held(int(child)) for child in children)


def row(name: str, folder: Path) -> tuple[float, float, float, float]:
    """Seconds on the clock, of CPU; MB at the most of the largest process, and of all together.

    This process stays small: a child's memory at the most counts from its fork, as a copy of this one.
    """
    command = [sys.executable, PROGRAM, name]
    if name in COMMANDS:
        command = [sys.executable, "-m", "tmsearch", *COMMANDS[name]]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    began = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, env=variables, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    watch = MemoryWatch(process.pid)
    watch.start()
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    watch.end()
    assert status == 0, name
    clock = time.perf_counter() - began
    cpu = usage.ru_utime + usage.ru_stime
    if name in PARTS:
        clock, cpu = json.loads(printed.splitlines()[-1])
    return clock, cpu, usage.ru_maxrss / 1024, watch.peak


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--configurations", type=int, default=2000)
    parser.add_argument("--clips", type=int, default=500)
    parser.add_argument("--only", nargs="+", choices=(*COMMANDS, *PARTS), default=[*COMMANDS, *PARTS])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as kept:
        folder = Path(kept, "made")
        folder.mkdir()
        sound = "sound" if "report" in arguments.only else "silence"
        size = [str(arguments.configurations), str(arguments.clips)]
        subprocess.run([sys.executable, PROGRAM, "make", *size, sound], cwd=folder, check=True)
        print(f"{arguments.configurations} configurations of 8 rungs, {arguments.clips} clips each, SQLite")
        print(f"{'':12} {'clock':>9} {'CPU':>9} {'memory':>9} {'together':>9}")
        for name in arguments.only:
            copy = folder
            if name in PARTS:  # they write
                copy = Path(kept, name)
                shutil.copytree(folder / "studies", copy / "studies")
            clock, cpu, largest, together = row(name, copy)
            print(f"{name:12} {clock:7.3f} s {cpu:7.3f} s {largest:6.0f} MB {together:6.0f} MB", flush=True)


if __name__ == "__main__":
    main()
