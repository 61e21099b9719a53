"""Several workers of one study: kills, stalls, interruptions, and a database that goes away."""

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from search.errors import RunError, StorageUnavailableError, UserError
from search.execution.launchers import options
from search.execution.launchers.local import LocalLauncher
from search.execution.lease import Interrupts
from search.execution.monitor import Monitor
from search.execution.worker_pool import WorkerPool
from search.exit_codes import MACHINE
from search.process_id import ProcessId
from tests.support.kill_campaign import COMMAND, campaign
from tests.support.toy_study import Watcher, press_once_running, toy_space, toy_storage, toy_study, work

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="watching processes needs Linux's /proc")


def pool_of(folder, ledger, workers, step_seconds=0.02, command=COMMAND, watcher=None):
    environment = {
        "TMSEARCH_STORAGE": f"sqlite:///{ledger.storage.file}",
        "TOY_STEP_SECONDS": str(step_seconds),
        "TMSEARCH_STUDIES": str(folder),
    }
    launcher = LocalLauncher([*command, str(folder / "toy")], environment, folder / "logs", workers)
    watcher = watcher or Watcher()
    return WorkerPool(launcher, workers, ledger, Monitor(ledger, watcher), watcher.notice), watcher


# Enough to pass every state of a study; `python -m tests.support.kill_campaign` has no end.
KILLS = 8


def test_kills_leave_no_trace_on_sqlite(tmp_path):
    killed = campaign(tmp_path / "kills", workers=4, kills=KILLS)
    assert sum(killed.values()) >= KILLS


def test_kills_leave_no_trace_on_postgresql(tmp_path, cluster):
    killed = campaign(tmp_path / "kills", workers=4, kills=KILLS, seed=1, cluster=cluster)
    assert any(name.startswith("server") for name in killed)


@pytest.fixture(autouse=True)
def folder_for_kills(tmp_path):
    (tmp_path / "kills").mkdir()


def test_a_pool_tells_what_one_worker_tells(tmp_path):
    ledger = toy_study(toy_storage(tmp_path), toy_space(tmp_path), 6)
    pool, watcher = pool_of(tmp_path, ledger, 3)
    assert pool.run(Interrupts()) == "done"
    history = ledger.history()
    assert all(trial.ended for trial in history)
    assert sorted(watcher.rungs[-1:])[0][3] in ("paused", "pruned", "finished")
    assert {(number, step) for number, step, *_ in watcher.rungs} == {
        (trial.number, rung.step) for trial in history for rung in trial.rungs
    }
    workers = {segment_worker(ledger, trial) for trial in history}
    assert len(workers) > 1, "more than one worker did something"
    assert not ledger.workers(), "they signed out"


def segment_worker(ledger, trial):
    with ledger.storage.read() as connection:
        query = "SELECT s.worker FROM tmsearch_segment s JOIN tmsearch_configuration c ON c.id = configuration_id"
        return connection.exec_driver_sql(f"{query} WHERE c.number = {trial.number}").first()[0]


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_reaches_every_worker(tmp_path, times):
    ledger = toy_study(toy_storage(tmp_path), toy_space(tmp_path), 6)
    # A long step: told once they finish it, told twice they don't.
    pool, _ = pool_of(tmp_path, ledger, 2, step_seconds=1.5)
    interrupts = Interrupts()
    press_once_running(ledger, interrupts, running=2, times=times)
    assert pool.run(interrupts) == "interrupted"
    assert not any(trial.state == "running" for trial in ledger.history())
    ledger.set_trials(6)
    pool, _ = pool_of(tmp_path, ledger, 2)
    assert pool.run(Interrupts()) == "done"


def test_workers_leave_when_their_pool_is_killed(tmp_path):
    ledger = toy_study(toy_storage(tmp_path), toy_space(tmp_path), 40)
    code = (
        "import sys\nfrom pathlib import Path\nfrom tests.search.execution.test_worker_pool import pool_of\n"
        "from tests.support.toy_study import *\nfrom search.study import open_study\n"
        "pool_of(Path(sys.argv[1]), open_study(toy_storage(Path(sys.argv[1])), 'toy'), 2)[0].run(Interrupts())\n"
    )
    pool = subprocess.Popen([sys.executable, "-c", code, str(tmp_path), "-"])
    until = time.monotonic() + 60
    while len(ledger.workers()) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    pids = [ProcessId.parse(worker.identity).pid for worker in ledger.workers()]
    assert len(pids) == 2
    pool.kill()
    pool.wait()
    until = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert not any(trial.state == "running" for trial in ledger.history()), "they gave their work back"


@pytest.mark.parametrize(("code", "error"), [(2, UserError), (1, RunError)])
def test_workers_that_cannot_work_end_the_pool_with_their_words(tmp_path, code, error, monkeypatch):
    ledger = toy_study(toy_storage(tmp_path), toy_space(tmp_path), 2)
    monkeypatch.setattr("search.execution.worker_pool.EARLY_DEATHS", 0)
    broken = [sys.executable, "-c", f"print('tmsearch: no driver'); raise SystemExit({code})"]
    pool, watcher = pool_of(tmp_path, ledger, 1, command=broken)
    with pytest.raises(error, match=r"no driver|workers folder"):
        pool.run(Interrupts())
    assert code == 2 or any("given up: tmsearch: no driver" in notice for notice in watcher.notices)


def test_a_worker_whose_machine_cannot_is_not_replaced(tmp_path):
    ledger = toy_study(toy_storage(tmp_path), toy_space(tmp_path), 2)
    broken = [sys.executable, "-c", f"print('tmsearch: trial 0: disk full'); raise SystemExit({MACHINE})"]
    pool, watcher = pool_of(tmp_path, ledger, 2, command=broken)
    with pytest.raises(RunError, match="trial 0: disk full"):
        pool.run(Interrupts())
    assert sorted(watcher.notices) == [f"worker {number} leaves: trial 0: disk full" for number in (0, 1)]
    assert not ledger.record().stopping


def test_a_bug_stops_every_worker(tmp_path):
    ledger = toy_study(toy_storage(tmp_path), toy_space(tmp_path), 6)
    ledger.request_stop("trial 0: ZeroDivisionError")
    pool, _ = pool_of(tmp_path, ledger, 2)
    with pytest.raises(RunError, match="ZeroDivisionError"):
        pool.run(Interrupts())


def test_a_stalled_worker_cannot_report_and_another_goes_on_from_its_checkpoint(tmp_path):
    space = toy_space(tmp_path)
    ledger = toy_study(toy_storage(tmp_path), space, 1)
    environment = {
        **os.environ,
        "TMSEARCH_STORAGE": f"sqlite:///{ledger.storage.file}",
        "TOY_STEP_SECONDS": "0.4",
        "TMSEARCH_STUDIES": str(tmp_path),
    }
    stalled = subprocess.Popen(
        [*COMMAND, str(tmp_path / "toy")], env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    log = tmp_path / "toy" / "trials" / "steps.log"
    until = time.monotonic() + 60
    while not log.exists() and time.monotonic() < until:
        time.sleep(0.02)
    time.sleep(0.6)  # the first step is saved
    (child_pid,) = Path(f"/proc/{stalled.pid}/task/{stalled.pid}/children").read_text().split()
    for pid in (stalled.pid, int(child_pid)):
        os.kill(pid, signal.SIGSTOP)
    with ledger.storage.write() as connection:
        connection.exec_driver_sql("UPDATE tmsearch_configuration SET lease_until = 0")
    watcher = Watcher()
    watcher.on_progress = lambda number, event: event.step >= 2 and wake(stalled.pid, int(child_pid))
    assert work(ledger, space, tmp_path / "toy", watcher=watcher, step_seconds=0.4)[0] == "done"
    output = stalled.communicate(timeout=60)[0]
    assert "the lease was lost" in output
    assert ledger.history()[0].curve == {step: 3.6 + 1 / step for step in (2, 4, 8)}
    first_steps = [line for line in log.read_text().splitlines() if line == "0 1"]
    assert len(first_steps) == 1, "the checkpoint of the stalled one was gone on from"
    assert not list((tmp_path / "toy").glob("trials/*/checkpoints*"))


def wake(*pids):
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize(("text", "said"), [("partition", "no KEY=VALUE"), ("colour=red", "no such option")])
def test_options_of_an_engine_are_checked(text, said):
    with pytest.raises(UserError, match=said):
        options([text], {"partition": "sbatch --partition"})


class DeafWorker:
    """Ends when it has been asked to stop `stops` times, or killed `kills` times; by poll, its exit code."""

    def __init__(self, stops, kills):
        self._stops, self._kills = stops, kills

    def poll(self):
        return None if self._stops > 0 and self._kills > 0 else -9

    def stop(self):
        self._stops -= 1

    def kill(self):
        self._kills -= 1

    def last_line(self):
        return ""


class DeafLauncher:
    def __init__(self, workers):
        self._workers = workers

    def start(self, slot):
        return self._workers[slot]

    def close(self):
        pass


@pytest.mark.parametrize(
    ("stops", "kills", "ending"),
    [(1, 1, None), (2, 1, "asked to leave at once"), (9, 1, "killed"), (9, 9, "not waited for any longer")],
)
@pytest.mark.parametrize("is_leaving", [False, True])
def test_a_worker_that_a_signal_does_not_reach_is_not_waited_for_without_end(
    tmp_path, monkeypatch, stops, kills, ending, is_leaving
):
    for name, seconds in (("INSIST_SECONDS", 0.1), ("KILL_SECONDS", 0.2), ("ABANDON_SECONDS", 0.3)):
        monkeypatch.setattr(f"search.execution.worker_pool.{name}", seconds)
    monkeypatch.setattr("search.execution.worker_pool.TICK_SECONDS", 0.02)
    ledger = toy_study(toy_storage(tmp_path), toy_space(tmp_path), 2)
    watcher, interrupts = Watcher(), Interrupts()
    # The second worker obeys at once, and its slot is not spoken of.
    launcher = DeafLauncher([DeafWorker(stops, kills), DeafWorker(1, 1)])
    pool = WorkerPool(launcher, 2, ledger, Monitor(ledger, watcher), watcher.notice)
    timer = threading.Timer(0.1, lambda: [interrupts.signal() for _ in range(1 + is_leaving)])
    timer.start()
    assert pool.run(interrupts) == "interrupted"
    overdue = [text for text in watcher.notices if text.startswith("worker 0")]
    if is_leaving:
        assert len(overdue) == (kills > 1), "the workers are killed at once, and no more is said than how that ends"
    else:
        assert ending is None or ending in overdue[-1]
        assert bool(overdue) == (ending is not None)


def away_every_other_time(function):
    """As `function` while a server restarts: called the first time and every other time it raises."""
    calls = itertools.count()

    def call(*args):
        if next(calls) % 2 == 0:
            raise StorageUnavailableError("the database cannot be used: server closed the connection unexpectedly")
        return function(*args)

    return call


def test_a_server_that_restarts_as_the_last_worker_leaves_makes_no_error(tmp_path, monkeypatch):
    ledger = toy_study(toy_storage(tmp_path), toy_space(tmp_path), 2)
    work(ledger, toy_space(tmp_path), tmp_path / "toy")
    watcher = Watcher()
    pool = WorkerPool(DeafLauncher([DeafWorker(0, 0)]), 1, ledger, Monitor(ledger, watcher), watcher.notice)
    monkeypatch.setattr(Monitor, "poll", away_every_other_time(Monitor.poll))
    monkeypatch.setattr(WorkerPool, "_outcome", away_every_other_time(WorkerPool._outcome))
    ledger.request_stop("")
    assert pool.run(Interrupts()) == "stopped"
