"""What the engine takes between a child's result and its next job, and a supervisor's memory.

    python tests/bench/reports.py [--trials 100] [--sampler guided]

One worker with a child that answers at once, on a SQLite file: the time from the result's arrival to the next segment's
job, results, verdicts, sampling and all; publishing to Optuna goes on beside it.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as the command line does

import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from search.execution.child_process import ChildProcess
from search.execution.lease import Interrupts
from search.execution.messages import SegmentResult
from search.execution.worker import Worker
from search.storage import claims as ledgers
from tests.support.toy_study import KNOBS, SPACE, Watcher, toy_space, toy_storage, toy_study


class Instant(ChildProcess):
    """Answers every segment at once, and notes when."""

    def __init__(self) -> None:
        super().__init__(["true"])
        self.sent: list[float] = []
        self.answered: list[float] = []
        self._answer = SegmentResult(0.0, {})

    def send(self, message):  # type: ignore[no-untyped-def]
        self.sent.append(time.perf_counter())
        value = (message["params"]["x"] - 3.0) ** 2 / 10 + 1.0 / message["last_step"]
        metrics = {"train_seconds": 1.0, "eval_seconds": 0.5, "errors": [1] * 124}
        self._answer = SegmentResult(value, metrics)

    def event(self, timeout):  # type: ignore[no-untyped-def]
        self.answered.append(time.perf_counter())
        return self._answer


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--sampler", default="guided")
    options = parser.parse_args()
    commits: list[float] = []
    real = ledgers.Ledger.commit

    def timed(*arguments, **named):  # type: ignore[no-untyped-def]
        began = time.perf_counter()
        answer = real(*arguments, **named)
        commits.append(time.perf_counter() - began)
        return answer

    ledgers.Ledger.commit = timed  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        text = SPACE.replace("strategy: STRATEGY", f"strategy: halving, sampler: {options.sampler}")
        space, child = toy_space(Path(folder), "halving", text), Instant()
        ledger = toy_study(toy_storage(Path(folder)), space, options.trials)
        Worker(ledger, space, KNOBS, child, Path(folder) / "toy", {}, Watcher()).run(Interrupts())
    between = sorted(after - before for before, after in zip(child.answered, child.sent[1:], strict=False))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{options.trials} configurations, {len(between) + 1} reports on SQLite, {options.sampler}")
    for what, times in (("recording a result", sorted(commits)), ("from a result to the next job", between)):
        ninth = times[int(0.9 * len(times))]
        print(f"{what}: median {1e3 * statistics.median(times):.1f} ms, 90 % within {1e3 * ninth:.1f} ms")
    print(f"supervisor: {peak:.0f} MB at the most")


if __name__ == "__main__":
    main()
