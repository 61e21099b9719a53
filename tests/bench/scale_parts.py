"""The parts of scale.py that are measured within a process: `python tests/bench/scale_parts.py draw`, in its folder.

`make CONFIGURATIONS CLIPS sound|silence` makes the study there. Each other part prints seconds on the clock and of CPU.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as the command line does

import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from search import study
from search.dashboard.publisher import Publisher
from search.process_id import ProcessId
from search.samplers import sampler
from search.space.search_space import Space
from search.storage.database import open_storage
from search.storage.ledger import Ledger

NAME = "large"
REPEATS = 5


def _ledger() -> tuple[Ledger, Space]:
    ledger = study.open_study(open_storage("sqlite:///studies/tmsearch.db"), NAME)
    return ledger, Space.from_json(dict(ledger.record().space))


def _timed(work: Callable[[], Any]) -> tuple[float, float]:
    """Seconds on the clock and of CPU."""
    clock = time.perf_counter()
    cpu = time.process_time()
    work()
    return time.perf_counter() - clock, time.process_time() - cpu


def _median(times: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return statistics.median(clock for clock, _ in times), statistics.median(cpu for _, cpu in times)


def draw() -> tuple[float, float]:
    """A guided draw; the first, which imports scipy, is left out."""
    ledger, space = _ledger()
    history = ledger.history()
    last_rung = space.budget.scheduler_config.last_rung
    times = []
    for number in range(len(history), len(history) + 1 + REPEATS):

        def once(number: int = number) -> None:
            sampler.draw(space.search, history, seed=0, number=number, last_rung=last_rung, sampler="guided")

        times.append(_timed(once))
    return _median(times[1:])


def claim() -> tuple[float, float]:
    """A claim of a configuration, after the first, which reads the history."""
    ledger, space = _ledger()
    config = space.budget.scheduler_config
    worker = ProcessId.current()
    times = []
    for _ in range(1 + REPEATS):
        clock = time.perf_counter()
        cpu = time.process_time()
        held = ledger.claim(worker, config)
        times.append((time.perf_counter() - clock, time.process_time() - cpu))
        assert held is not None
        ledger.fail(held, "diverged", "for the bench")
    return _median(times[1:])


def publish() -> tuple[float, float]:
    """Every configuration, to Optuna."""
    ledger, space = _ledger()
    return _timed(lambda: Publisher(ledger, space, print).publish())


def supervisor() -> tuple[float, float]:
    """What a worker does between two results: a claim, a guided draw, and the result published."""
    ledger, space = _ledger()
    config = space.budget.scheduler_config

    def segment() -> None:
        held = ledger.claim(ProcessId.current(), config)
        assert held is not None
        drawn = sampler.draw(
            space.search, held.history, seed=0, number=held.number, last_rung=config.last_rung, sampler="guided"
        )
        ledger.set_params(held, drawn, drawn, "sampled")
        ledger.commit(held, 0.5, {"errors": [1] * 500, "train_seconds": 1.0, "eval_seconds": 1.0}, config)
        Publisher(ledger, space, print).publish()

    segment()
    return _timed(segment)


PARTS = {"draw": draw, "claim": claim, "publish": publish, "supervisor": supervisor}


def make(configurations: int, clips: int, sound: bool) -> None:
    """The study, in this folder."""
    from tests.support.large_study import LargePlan, large_study  # imports more than a supervisor does

    large_study(Path.cwd(), LargePlan(configurations, clips, recordings=sound))


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "sound")
    else:
        print(json.dumps(PARTS[sys.argv[1]]()))
