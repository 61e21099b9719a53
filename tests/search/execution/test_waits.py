"""Every wait for a training process or a store ends, and the interrupts of a person are heard meanwhile."""

import sys
import threading
import time
from pathlib import Path

import fsspec
import pytest

from search.execution import child_process, lease, log_file, watchdog
from search.execution.checkpoint_store import CheckpointStore
from search.execution.child_process import ChildExitError, ChildProcess, run_job
from search.execution.lease import Interrupts
from search.execution.messages import CheckJob
from search.execution.watchdog import Watchdog
from search.execution.worker import Worker
from tests.support.toy_study import CHILD, KNOBS, Watcher, toy_space, toy_storage, toy_study, work

CHECK = CheckJob({}, (), measure=False, objective="wer")
HANGING = "import sys, time; sys.stdin.readline(); time.sleep(600)"
CLOSING = "import os, sys, time; sys.stdin.readline(); os.close(1); time.sleep(600)"
GRANDCHILD = """
import subprocess, sys
sys.stdin.readline()
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
sys.exit(7)
"""
UNREADING = "import time; time.sleep(600)"


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(child_process, "CLOSE_SECONDS", 0.5)


def child(program: str, **options) -> ChildProcess:
    return ChildProcess([sys.executable, "-c", program], **options)


def test_a_process_that_hangs_is_killed_and_its_trial_ends_after_three(tmp_path):
    ledger, watcher = toy_study(toy_storage(tmp_path), toy_space(tmp_path), 1), Watcher()
    hanging = child(HANGING, silence_seconds=1.0)
    assert work(ledger, toy_space(tmp_path), tmp_path / "toy", child=hanging, watcher=watcher)[0] == "done"
    trial = ledger.history()[0]
    assert trial.failure == "crashed"
    assert "no sign of life for 1 s" in trial.reason
    assert any("no sign of life" in text and "TMSEARCH_WATCHDOG" in text for text in watcher.notices)


def test_a_check_by_a_process_that_hangs_ends():
    with pytest.raises(ChildExitError, match="no sign of life"):
        run_job(child(HANGING, silence_seconds=1.0), CHECK)


@pytest.mark.parametrize(("program", "words"), [(CLOSING, "closed its output"), (GRANDCHILD, "exit code 7")])
def test_a_process_that_closes_its_output_or_leaves_it_to_another_one_is_ended(program, words):
    began = time.monotonic()
    process = child(program)
    with pytest.raises(ChildExitError, match=words):
        run_job(process, CHECK)
    assert time.monotonic() - began < 30
    assert process.pid is None


def test_no_process_is_started_to_be_asked_to_stop():
    """One signal that reaches a worker and its training process: a new process would wait for a job for ever."""
    process = child("import os, signal, sys; sys.stdin.readline(); os.kill(os.getpid(), signal.SIGTERM)")
    process.send_job(CHECK)
    ended = process.pid
    deadline = time.monotonic() + 20
    while stat_group(Path(f"/proc/{ended}/stat")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.request_stop()
    assert process.pid == ended
    with pytest.raises(ChildExitError, match="SIGTERM"):
        process.event(timeout=10)


PARENT = """
import subprocess, sys, time
sys.stdin.readline()
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print('{"up": true}', flush=True)
time.sleep(600)
"""


def test_what_a_process_started_ends_with_it():
    process = child(PARENT)
    process.send({})
    assert process.receive(timeout=60) == {"up": True}
    group = process.pid
    process.kill()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if not any(stat_group(path) == group for path in Path("/proc").glob("[0-9]*/stat")):
            return
        time.sleep(0.05)
    pytest.fail("a grandchild outlived its process")


def stat_group(path: Path) -> int:
    """The process group of a process; 0 of one that has ended."""
    try:
        state, _, group = path.read_text().rpartition(")")[2].split()[:3]
    except OSError:
        return 0
    return 0 if state == "Z" else int(group)


def test_a_process_that_reads_nothing_blocks_nobody():
    process = child(UNREADING)
    began = time.monotonic()
    process.send({"text": "x" * 2**22})
    process.request_stop()
    assert process.receive(timeout=0.1) is None
    process.close()
    assert time.monotonic() - began < 20


def test_the_limit_follows_the_pace(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(watchdog.time, "monotonic", lambda: now[0])
    dog = Watchdog()
    assert dog.limit == watchdog.FIRST_SECONDS
    for _ in range(3):
        now[0] += 100.0
        dog.sign()
    assert dog.limit == watchdog.PACE_FACTOR * 100.0
    now[0] += 1001.0
    assert [dog.warns(), dog.warns(), dog.is_hung()] == [True, False, False]
    now[0] += 1000.0
    assert dog.is_hung()
    assert not Watchdog(0.0).is_hung()


def test_the_log_of_a_process_has_a_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(log_file, "LOG_BYTES", 10_000)
    process = child("import sys; sys.stderr.write('x' * 200_000 + '\\n' * 5_000)", log=tmp_path / "worker.log")
    process.send({})
    with pytest.raises(ChildExitError):
        process.receive(timeout=60)
    time.sleep(1)
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["worker.log", "worker.log.1"]
    assert all(path.stat().st_size < 30_000 for path in tmp_path.iterdir())


class Unreachable(fsspec.AbstractFileSystem):
    protocol = "unreachable"

    def __init__(self, *_, **__):
        raise ConnectionError("no route to host")


class Silent(fsspec.AbstractFileSystem):
    protocol = "silent"

    def isdir(self, path):
        threading.Event().wait()


@pytest.mark.parametrize("kind", [Unreachable, Silent])
def test_a_store_that_is_away_at_the_start_costs_time_and_no_result(tmp_path, monkeypatch, kind):
    fsspec.register_implementation(kind.protocol, kind, clobber=True)
    monkeypatch.setattr(lease, "BESIDE_SECONDS", 0.5)
    space, watcher = toy_space(tmp_path), Watcher()
    ledger = toy_study(toy_storage(tmp_path), space, 2)
    store = CheckpointStore(f"{kind.protocol}://bucket/x", "toy", watcher.notice)
    process = ChildProcess(CHILD)
    try:
        worker = Worker(ledger, space, KNOBS, process, tmp_path / "toy", {}, watcher, checkpoint_store=store)
        assert worker.run(Interrupts()) == "done"
    finally:
        process.close()
    assert all(trial.rungs for trial in ledger.history())
    assert any("TMSEARCH_CHECKPOINTS" in text for text in watcher.notices)
