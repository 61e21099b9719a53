"""Kills at random, of everything, while eight workers search; then what is left is held against a run without kills.

    python -m tests.support.kill_campaign --kills 200 [--workers 8] [--postgres] [--strategy bracket]

Victims are supervisors, their children and, with --postgres, the server, which is started again; the signal is 9 or 15.
As many studies are run as it takes. Nobody intervenes. Exits with 1 at the first thing that is not as it should be.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

import optuna

from search import study
from search.dashboard.frozen_trial import curve
from search.dashboard.publisher import Publisher
from search.execution import checkpoint_gc
from search.execution.launchers.local import LocalLauncher
from search.execution.lease import Interrupts
from search.execution.monitor import Monitor
from search.execution.worker_pool import WorkerPool
from search.storage.database import open_storage
from tests.support.postgres import Cluster
from tests.support.toy_study import SPACE, Watcher, told, toy_space, toy_storage, toy_study, work

TRIALS, STEP_SECONDS = 24, 0.05
COMMAND = [sys.executable, str(Path(__file__).with_name("toy_worker.py"))]
TEXT = SPACE.replace("strategy: STRATEGY", "strategy: STRATEGY, sampler: quasi-random")


class Killer(threading.Thread):
    """Kills one of them every now and then, until it has killed enough or the pool is through."""

    def __init__(self, pool, cluster, chance, most):
        super().__init__(daemon=True)
        self.pool, self.cluster, self.chance, self.most = pool, cluster, chance, most
        self.killed, self.through = {}, threading.Event()

    def run(self):
        while not self.through.wait(self.chance.uniform(0.05, 0.5)) and sum(self.killed.values()) < self.most:
            self.kill_something()

    def kill_something(self):
        supervisors = [slot.handle.pid for slot in self.pool._slots if slot.handle and slot.handle.poll() is None]
        kind = self.chance.choices(["supervisor", "child", "server"], [5, 5, 1 if self.cluster else 0])[0]
        if self.cluster and not any(name.startswith("server") for name in self.killed) and self._is_half_way():
            kind = "server"  # at least once, also where there are few kills
        number = self.chance.choice([signal.SIGKILL, signal.SIGTERM])
        if kind == "server":
            self.cluster.kill(number)
        else:
            victims = supervisors
            if kind == "child":
                victims = [child for supervisor in supervisors for child in children(supervisor)]
            if not victims:
                return
            try:
                os.kill(self.chance.choice(victims), number)
            except ProcessLookupError:
                return
        name = f"{kind} -{int(number)}"
        self.killed[name] = self.killed.get(name, 0) + 1

    def _is_half_way(self):
        return sum(self.killed.values()) >= self.most // 2


def children(pid):
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def descendants_named(name):
    """Processes of ours that still run."""
    pids = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if name.encode() in path.read_bytes():
                pids.append(int(path.parent.name))
        except OSError:
            continue
    return pids


def study_under_fire(folder, workers, kills, chance, strategy, cluster=None):
    """One study under fire; what was killed. Asserts that it came to what it should."""
    folder.mkdir()
    space = toy_space(folder, strategy, TEXT)
    storage = open_storage(cluster.url) if cluster else toy_storage(folder)
    ledger = toy_study(storage, space, TRIALS)
    url = cluster.url if cluster else f"sqlite:///{storage.file}"
    environment = {"TMSEARCH_STORAGE": url, "TMSEARCH_STUDIES": str(folder), "TOY_STEP_SECONDS": str(STEP_SECONDS)}
    launcher = LocalLauncher([*COMMAND, str(folder / "toy")], environment, folder / "logs", workers)
    publisher = Publisher(ledger, space, lambda text: None)

    def clean_up():
        checkpoint_gc.clean_up(ledger, space.budget.scheduler_config, folder / "toy", None)

    pool = WorkerPool(launcher, workers, ledger, Monitor(ledger, Watcher()), lambda text: None, publisher, clean_up)
    killer = Killer(pool, cluster, chance, kills)
    killer.start()
    outcome = pool.run(Interrupts(), time.monotonic() + 600)
    killer.through.set()
    killer.join()
    assert outcome == "done", outcome
    storage.engine.dispose()  # its connections may be to a server that was killed after they were used last
    check(ledger, space, folder, strategy)
    return killer.killed


def check(ledger, space, folder, strategy):
    """Exactly the asked configurations, each result once, the values of an undisturbed run, nothing left behind."""
    history = ledger.history()
    states = [configuration.state for configuration in history]
    assert [configuration.number for configuration in history] == list(range(TRIALS))
    assert all(state in ("finished", "pruned") for state in states), states
    (folder / "calm").mkdir()
    calm = toy_study(toy_storage(folder / "calm"), space, TRIALS)
    work(calm, space, folder / "calm" / "toy")
    if strategy == "bracket":
        assert told(ledger) == told(calm), "a synchronous ladder comes to the same"
    for configuration, undisturbed in zip(history, calm.history(), strict=True):
        assert configuration.drawn == undisturbed.drawn
        assert all(value == undisturbed.curve.get(step, value) for step, value in configuration.curve.items())
    trials = optuna.load_study(study_name="toy", storage=ledger.storage.optuna).trials
    latest = {trial.user_attrs["configuration"]: trial for trial in trials}
    assert sorted(latest) == list(range(TRIALS))
    assert all(trial.state.is_finished() for trial in trials), "a zombie among Optuna's trials"
    assert all(latest[configuration.number].intermediate_values == curve(configuration) for configuration in history)
    left = [path for path in (folder / "toy").rglob("*") if "checkpoints" in path.parts or ".discarded" in path.name]
    assert not left, f"orphaned: {left}"
    until = time.monotonic() + 10
    while (outliving := descendants_named(str(folder / "toy"))) and time.monotonic() < until:
        time.sleep(0.1)
    assert not outliving, f"processes that outlived the study: {outliving}"
    assert not [worker for worker in ledger.workers() if worker.alive]


def campaign(folder, workers, kills, seed=0, strategy="bracket", cluster=None, say=lambda text: None):
    """Studies under fire until so many were killed; how many of each kind."""
    chance, killed, number = random.Random(seed), {}, 0
    while sum(killed.values()) < kills:
        if cluster and number:  # each begins in a database without the last one
            study.delete(study.open_study(open_storage(cluster.url), "toy"))
        began = time.monotonic()
        kills_left = kills - sum(killed.values())
        killed_here = study_under_fire(folder / str(number), workers, kills_left, chance, strategy, cluster)
        for name, count in killed_here.items():
            killed[name] = killed.get(name, 0) + count
        number += 1
        say(f"study {number}: {sum(killed_here.values())} kills, {time.monotonic() - began:.0f} s, as it should be")
    return killed


def main():
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--strategy", default="bracket")
    parser.add_argument("--postgres", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tmsearch-") as folder:
        cluster = Cluster(Path(folder) / "pg") if options.postgres else None
        try:
            killed = campaign(
                Path(folder),
                options.workers,
                options.kills,
                options.seed,
                options.strategy,
                cluster,
                lambda text: print(text, flush=True),
            )
        finally:
            if cluster:
                cluster.stop()
    what = ", ".join(f"{count} {name}" for name, count in sorted(killed.items()))
    print(f"{sum(killed.values())} kills ({what}): every study came to what it should")


if __name__ == "__main__":
    main()
