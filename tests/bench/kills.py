"""The embedded demo searched by two workers while everything is killed at random, against a run without kills.

    python tests/bench/kills.py [--kills 20] [--trials 8] [--workers 2]

Victims are the command itself, its workers and their children, by signal 9 or 15; the same command is started again
until it ends by itself. A synchronous ladder must come to the same configurations, states and WERs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
SETTINGS = ("budget.strategy=bracket", "budget.sampler=quasi-random", "budget.eta=2")
COMPARED = ("number", "state", "params", "steps", "wer")


def descendants(pid: int) -> list[int]:
    """Every process that `pid` started, and those that they did."""
    try:
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return [*children, *(descendant for child in children for descendant in descendants(child))]


def command(folder: Path, *words: str) -> list[str]:
    storage = f"sqlite:///{folder}/tmsearch.db"
    return [sys.executable, "-m", "tmsearch", *words, "--storage", storage]


def search(folder: Path, trials: int, workers: int) -> list[str]:
    words = ["run", "--space", str(ROOT / "spaces" / "demo.yaml"), "--trials", str(trials), "--workers", str(workers)]
    return command(folder, *words, *(word for setting in SETTINGS for word in ("--set", setting)))


def came_to(folder: Path) -> list[tuple[object, ...]]:
    status = subprocess.run(command(folder, "status", "demo", "--json"), capture_output=True, check=True)
    configurations = json.loads(status.stdout)["configurations"]
    return [tuple(configuration[key] for key in COMPARED) for configuration in configurations]


def under_fire(folder: Path, options: argparse.Namespace, chance: random.Random) -> tuple[dict[str, int], int]:
    """Kills until there were enough, then leaves it alone; what was killed, and how often the command was started."""
    killed: dict[str, int] = {}
    process, starts = None, 0
    while process is None or process.poll() != 0:
        if process is None or process.poll() is not None:
            assert starts < 100
            log = (folder / "log").open("ab")
            process = subprocess.Popen(search(folder, options.trials, options.workers), stdout=log, stderr=log)
            starts += 1
        time.sleep(chance.uniform(1.0, 6.0))
        if sum(killed.values()) >= options.kills or process.poll() is not None:
            time.sleep(0.5)
            continue
        workers = [("worker", pid) for pid in descendants(process.pid)] if chance.random() > 0.15 else []
        kind, pid = chance.choice(workers or [("command", process.pid)])
        number = chance.choice([signal.SIGKILL, signal.SIGTERM])
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
        killed[f"{kind} -{int(number)}"] = killed.get(f"{kind} -{int(number)}", 0) + 1
    return killed, starts


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tmsearch-") as root:
        calm, fire = Path(root) / "calm", Path(root) / "fire"
        calm.mkdir()
        fire.mkdir()
        subprocess.run(search(calm, options.trials, options.workers), check=True, capture_output=True)
        killed, starts = under_fire(fire, options, random.Random(options.seed))
        if came_to(calm) != came_to(fire):
            print(came_to(calm), came_to(fire), sep="\n")
            sys.exit("not the same")
        subprocess.run(command(fire, "doctor", "demo"), check=True, capture_output=True)
        left = [path for path in fire.rglob("*") if "checkpoints" in path.parts]
        assert not left, left
    what = ", ".join(f"{count} {name}" for name, count in sorted(killed.items()))
    print(f"{sum(killed.values())} kills ({what}), the command started {starts} times: the same, to the last digit")


if __name__ == "__main__":
    main()
