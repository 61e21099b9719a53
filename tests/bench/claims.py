"""Claims of many workers at once: how long one waits for a fresh configuration, and how many a second there are.

    python tests/bench/claims.py --workers 64 --seconds 20 --each 2.0 [--storage URL] [--sampler random]

Each worker claims, draws four knobs, records them, "trains" for about --each seconds (0: claims as fast as it can) and
commits. Without --storage a PostgreSQL cluster is started in a temporary folder; --sqlite takes a SQLite file there.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as the command line does
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from search import study
from search.process_id import ProcessId
from search.samplers import sampler
from search.space import search_space as spaces
from search.space.knobs import Knob
from search.storage.database import open_storage
from tests.support.postgres import Cluster

KNOBS = {
    "learning_rate": Knob("learning_rate", (float,), low=1e-9, high=1.0),
    "warmup_steps": Knob("warmup_steps", (int,), low=0),
    "weight_decay": Knob("weight_decay", (float,), low=0.0, high=1.0),
    "normalize": Knob("normalize", (bool,)),
}
SPACE = """
study: claims
data: {dataset: none}
budget: {max_steps: 8, rungs: [8], strategy: none, sampler: SAMPLER}
search:
  learning_rate: {low: 1e-6, high: 1e-3, log: true}
  warmup_steps: {low: 0, high: 8, step: 1}
  weight_decay: {low: 0.0, high: 0.1}
  normalize: [true, false]
"""


def work(url: str, options: argparse.Namespace, ready: Any, answers: Any) -> None:
    """One worker: what each claim took."""
    ledger = study.open_study(open_storage(url), "claims")
    space = spaces.Space.from_json(dict(ledger.record().space))
    scheduler_config, me, chance = space.budget.scheduler_config, ProcessId.current(), random.Random(os.getpid())
    took, numbers = [], []
    ready.wait()
    until = time.monotonic() + options.seconds
    time.sleep(options.each * chance.random())
    while time.monotonic() < until:
        began = time.perf_counter()
        claim = ledger.claim(me, scheduler_config)
        assert claim is not None
        drawn = sampler.draw(
            space.search, claim.history, seed=0, number=claim.number, last_rung=8, sampler=space.budget.sampler
        )
        assert ledger.set_params(claim, drawn, drawn, "sampled")
        took.append(time.perf_counter() - began)
        numbers.append(claim.number)
        time.sleep(options.each * (0.5 + chance.random()))
        ledger.commit(claim, chance.random(), {"errors": [0] * 124}, scheduler_config)
    answers.put((took, numbers))


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--each", type=float, default=2.0, help="seconds that a training takes, on average")
    parser.add_argument("--sampler", default="guided")
    parser.add_argument("--storage")
    parser.add_argument("--sqlite", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cluster = None if options.sqlite or options.storage else Cluster(Path(folder) / "pg")
        url = f"sqlite:///{folder}/db.sqlite" if options.sqlite else options.storage or (cluster.url if cluster else "")
        try:
            print(report(url, options, Path(folder)))
        finally:
            if cluster:
                cluster.stop()


def report(url: str, options: argparse.Namespace, folder: Path) -> str:
    file = folder / "claims.yaml"
    file.write_text(SPACE.replace("SAMPLER", options.sampler))
    space = spaces.load(file, train=KNOBS, data={"dataset": Knob("dataset", (str,))})
    ledger = study.create(open_storage(url), space, seed=0, trials=10**6, version="bench", facts={})
    context = multiprocessing.get_context("fork")  # what is imported is imported once
    ready, queue = context.Barrier(options.workers), context.Queue()
    ledger.storage.engine.dispose()
    workers = [context.Process(target=work, args=(url, options, ready, queue)) for _ in range(options.workers)]
    for worker in workers:
        worker.start()
    answers = [queue.get(timeout=options.seconds + 120) for _ in workers]
    took = sorted(seconds for claims, _ in answers for seconds in claims)
    numbers = [number for _, claimed in answers for number in claimed]
    assert len(numbers) == len(set(numbers)) == len(ledger.history()), "a configuration was given out twice"
    ninth = took[int(0.9 * len(took))]
    kind = "SQLite" if options.sqlite else "PostgreSQL"
    return (
        f"{options.workers} workers on {kind}, {options.sampler}: "
        f"{len(took)} claims, {len(took) / options.seconds:.1f} a second; "
        f"median {statistics.median(took):.3f} s, 90 % within {ninth:.3f} s, longest {took[-1]:.3f} s; none twice"
    )


if __name__ == "__main__":
    main()
