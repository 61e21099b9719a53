"""A study of toys: one number to search, a child of some lines, no torch."""

import sys
import threading
import time
from pathlib import Path

from search import study
from search.execution.child_process import ChildProcess
from search.execution.worker import Interrupts, Worker
from search.space import search_space as spaces
from search.space.knobs import Knob
from search.storage.database import Storage, open_storage

KNOBS = {
    "x": Knob("x", (float,), low=-1000.0, high=1000.0),
    "kind": Knob("kind", (str,), choices=("plain", "fancy")),
}
DATA = {"dataset": Knob("dataset", (str,))}
SPACE = """
study: toy
data: {dataset: none}
budget: {max_steps: 8, rungs: [2, 4, 8], eta: 2, strategy: STRATEGY}
search:
  x: {low: 0, high: 10}
  kind: [plain, fancy]
start:
  - {x: 9.0}
"""
CHILD = [sys.executable, str(Path(__file__).with_name("toy_child.py"))]


class Watcher:
    """A listener that remembers."""

    def __init__(self):
        self.rungs, self.failures, self.notices, self.claims, self.at = [], [], [], [], []
        self.on_progress = lambda number, event: None

    def claimed(self, number, params, first_step, last_step):
        self.claims.append((number, first_step, last_step))

    def progress(self, number, event):
        self.on_progress(number, event)

    def fact(self, key, value):
        pass

    def rung(self, number, step, value, metrics, state):
        self.rungs.append((number, step, value, state))

    def failed(self, number, failure, reason):
        self.failures.append((number, failure, reason))

    def notice(self, text):
        self.notices.append(text)

    def at_work(self, running):
        self.at.append(dict(running))


def toy_space(folder: Path, strategy: str = "halving", text: str = SPACE) -> spaces.Space:
    file = folder / "toy.yaml"
    file.write_text(text.replace("STRATEGY", strategy))
    return spaces.load(file, train=KNOBS, data=DATA)


def toy_storage(folder: Path) -> Storage:
    return open_storage(f"sqlite:///{folder}/db.sqlite")


def toy_study(storage: Storage, space: spaces.Space, trials: int, seed: int = 0):
    return study.create(storage, space, seed=seed, trials=trials, version="test", facts={"data": {"clips": 1}})


def work(ledger, space, folder: Path, *, interrupts=None, deadline=float("inf"), watcher=None, child=None, **job):
    """Run one worker to its end; (outcome, watcher)."""
    watcher = watcher or Watcher()
    child = child or ChildProcess(CHILD)
    worker = Worker(ledger, space, KNOBS, child, folder, job, watcher)
    try:
        outcome = worker.run(interrupts or Interrupts(), deadline)
    finally:
        child.close()
    return outcome, watcher


def told(ledger):
    """What a study came to, without the times."""
    return [(trial.number, trial.drawn, trial.state, trial.curve) for trial in ledger.history()]


def press_once_running(ledger, interrupts, running=1, times=1):
    """Ctrl-C, so many times, once so many configurations are at work; in a thread, at once."""

    def press():
        until = time.monotonic() + 60
        while sum(trial.state == "running" for trial in ledger.history()) < running and time.monotonic() < until:
            time.sleep(0.05)
        for _ in range(times):
            interrupts.signal()
            time.sleep(0.3)

    threading.Thread(target=press, daemon=True).start()
