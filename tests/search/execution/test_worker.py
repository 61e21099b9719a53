"""The whole engine on toys: claims, rungs, kills, interruptions, failures."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from search import study
from search.doctor import Doctor
from search.errors import MachineError, RunError, UserError
from search.execution import checkpoint_gc
from search.execution.child_process import ChildProcess
from search.execution.worker import Interrupts
from tests.support.toy_study import CHILD, SPACE, Watcher, told, toy_space, toy_storage, toy_study, work

PLANNED = SPACE.replace("eta: 2, ", "")


def fresh(folder: Path, trials: int = 6, strategy: str = "halving", text: str = SPACE):
    folder.mkdir(exist_ok=True)
    space, storage = toy_space(folder, strategy, text), toy_storage(folder)
    return toy_study(storage, space, trials), space, folder / "toy"


def steps_done(folder: Path) -> list[str]:
    return (folder / "trials" / "steps.log").read_text().splitlines()


def test_a_search_prunes_and_finishes(tmp_path):
    ledger, space, folder = fresh(tmp_path)
    outcome, _watcher = work(ledger, space, folder)
    history = ledger.history()
    assert outcome == "done"
    assert [trial.number for trial in history] == list(range(6))
    assert history[0].origin == "start"
    assert history[0].params["x"] == 9.0
    assert {trial.state for trial in history} == {"finished", "pruned"}
    assert all(trial.steps in (2, 4, 8) for trial in history)
    assert ledger.facts()["baseline"] == 9.0
    assert ledger.facts()["memory"] == 4
    steps = steps_done(folder)
    assert len(steps) == len(set(steps)), "no step is trained twice"
    assert study.summarize(ledger).best.value == min(trial.value for trial in history if trial.state == "finished")


@pytest.mark.parametrize("strategy", ["none", "halving"])
def test_trials_is_the_total(tmp_path, strategy):
    ledger, space, folder = fresh(tmp_path, trials=3, strategy=strategy)
    work(ledger, space, folder)
    first = told(ledger)
    work(ledger, space, folder)
    assert told(ledger) == first
    ledger.set_trials(5)
    work(ledger, space, folder)
    assert len(ledger.history()) == 5
    if strategy == "none":
        assert told(ledger)[:3] == first
    for (*before, _, curve), (*after, _, longer_curve) in zip(first, told(ledger), strict=False):
        assert after == before
        assert curve.items() <= longer_curve.items(), "with more configurations more of them go past a rung"


def test_no_pruning_trains_all_in_full(tmp_path):
    ledger, space, folder = fresh(tmp_path, strategy="none")
    work(ledger, space, folder)
    assert {trial.state for trial in ledger.history()} == {"finished"}


@pytest.mark.parametrize("text", [SPACE, PLANNED])
def test_interrupt_keeps_everything_and_resumes(tmp_path, text):
    unbroken, space, folder = fresh(tmp_path / "a", text=text)
    work(unbroken, space, folder)
    ledger, space, folder = fresh(tmp_path / "b", text=text)
    for number, step in ((0, 1), (1, 2), (3, 1)):
        interrupts, watcher = Interrupts(), Watcher()

        def press(now, event, number=number, step=step, interrupts=interrupts):
            if (now, event.step) >= (number, step):
                interrupts.stop = True

        watcher.on_progress = press
        outcome, _ = work(ledger, space, folder, interrupts=interrupts, watcher=watcher, step_seconds=0.02)
        assert outcome == "interrupted"
        assert all(trial.state in ("paused", "pruned", "finished") for trial in ledger.history())
    assert work(ledger, space, folder)[0] == "done"
    assert told(ledger) == told(unbroken)
    assert sorted(steps_done(folder)) == sorted(steps_done(tmp_path / "a" / "toy"))


def test_deadline_and_stop_request_leave_work_to_resume(tmp_path):
    ledger, space, folder = fresh(tmp_path)
    outcome, _ = work(ledger, space, folder, deadline=time.monotonic() + 0.3, step_seconds=0.1)
    assert outcome == "timeout"
    ledger.request_stop()
    assert work(ledger, space, folder)[0] == "stopped"
    ledger.set_trials(6)
    assert work(ledger, space, folder)[0] == "done"
    assert len(ledger.history()) == 6


def test_a_planned_study_trains_its_default_first_and_is_cut_short_by_time(tmp_path):
    ledger, space, folder = fresh(tmp_path, trials=60, text=PLANNED)
    outcome, watcher = work(ledger, space, folder, deadline=time.monotonic() + 3.0, step_seconds=0.05)
    assert outcome == "timeout"
    assert watcher.claims[:3] == [(0, 0, 2), (0, 2, 4), (0, 4, 8)]
    history = ledger.history()
    assert len(history) < 60
    assert "pruned" not in {trial.state for trial in history}, "the plan of 60 goes on with them"
    ledger.set_trials(len(history))
    assert work(ledger, space, folder)[0] == "done"
    assert {trial.state for trial in ledger.history()} <= {"finished", "pruned"}


SUPERVISOR = """
import sys
from pathlib import Path
from tests.support.toy_study import *
from search.study import open_study
from search.space.search_space import Space
folder = Path(sys.argv[1])
ledger = open_study(toy_storage(folder), "toy")
work(ledger, Space.from_json(ledger.record().space), folder / "toy", step_seconds=0.02)
"""


def wait_for_more_steps(folder: Path) -> None:
    log = folder / "trials" / "steps.log"
    before = log.stat().st_size if log.exists() else 0
    deadline = time.monotonic() + 30
    while not log.exists() or log.stat().st_size <= before:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children_of(pid: int) -> list[int]:
    pids = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(pid) for pid in pids]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finding a process's children needs Linux's /proc")
@pytest.mark.parametrize("victim", ["supervisor", "child", "both"])
def test_kill_9_loses_nothing_and_repeats_nothing(tmp_path, victim):
    unbroken, space, folder = fresh(tmp_path / "a")
    work(unbroken, space, folder)
    ledger, space, folder = fresh(tmp_path / "b")
    command = [sys.executable, "-c", SUPERVISOR, str(tmp_path / "b")]
    process = None
    for wait in (0.02, 0.05, 0.1):
        if process is None or process.poll() is not None:
            process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])})
        wait_for_more_steps(folder)
        time.sleep(wait)
        children = children_of(process.pid)
        assert len(children) == 1
        if victim != "supervisor":
            os.kill(children[0], signal.SIGKILL)
        if victim != "child":
            process.kill()
            process.wait(timeout=60)
        gone = time.monotonic() + 5
        while alive(children[0]) and time.monotonic() < gone:
            time.sleep(0.01)
        assert not alive(children[0]), "a child outlived its supervisor"
    if victim == "child":
        assert process.wait(timeout=60) == 0, "the supervisor starts another child"
    assert work(ledger, space, folder)[0] == "done"
    assert told(ledger) == told(unbroken)


def test_a_child_that_keeps_dying_ends_its_configuration_only(tmp_path):
    ledger, space, folder = fresh(tmp_path, trials=3)
    _, watcher = work(ledger, space, folder, crash_at=9.0)
    history = ledger.history()
    assert (history[0].state, history[0].failure) == ("failed", "crashed")
    assert "exit code 9" in history[0].reason
    assert len([claim for claim in watcher.claims if claim[0] == 0]) == 3, "retried twice"
    assert [trial.state in ("finished", "pruned") for trial in history[1:]] == [True, True]
    assert ledger.requeue([0]) == [0]
    assert work(ledger, space, folder)[0] == "done"
    assert ledger.history()[0].state == "pruned", "after retry it goes on, and loses against the others"


def test_where_every_child_crashes_the_study_stops(tmp_path):
    ledger, space, folder = fresh(tmp_path, trials=20)
    child = ChildProcess([sys.executable, "-c", "import no_such_module"])
    with pytest.raises(RunError, match="trials 0, 1 crashed and none has a result"):
        work(ledger, space, folder, child=child)
    assert len(ledger.history()) == 2
    ledger.requeue([0, 1])
    ledger.set_trials(4)
    assert work(ledger, space, folder)[0] == "done"


def test_divergence_ends_the_configuration_with_its_reason(tmp_path):
    ledger, space, folder = fresh(tmp_path, trials=2)
    _, watcher = work(ledger, space, folder, diverge_at=9.0)
    assert watcher.failures == [(0, "diverged", "loss is NaN at step 1")]
    assert ledger.history()[0].state == "failed"


def test_a_bug_stops_the_study_and_fails_nothing(tmp_path):
    ledger, space, folder = fresh(tmp_path)
    child = ChildProcess(CHILD, folder.parent / "worker.log")
    with pytest.raises(RunError, match="ZeroDivisionError: toy"):
        work(ledger, space, folder, bug_at=9.0, child=child)
    assert "Traceback of the toy" in (folder.parent / "worker.log").read_text()
    assert [trial.state for trial in ledger.history()] == ["paused"]
    assert "ZeroDivisionError" in ledger.record().stop_reason
    assert work(ledger, space, folder)[0] == "stopped", "other workers do not run into it as well"
    ledger.set_trials(6)
    assert work(ledger, space, folder)[0] == "done"


def test_a_full_disk_is_tried_once_more_and_ends_this_worker_only(tmp_path):
    ledger, space, folder = fresh(tmp_path, trials=2)
    watcher = Watcher()
    with pytest.raises(RunError, match="trial 0: disk of the toy"):
        work(ledger, space, folder, watcher=watcher, disk_at=9.0)
    assert any("tried once more" in notice for notice in watcher.notices)
    assert not ledger.record().stopping, "others have other disks"
    assert work(ledger, space, folder)[0] == "done"


def test_a_limit_of_this_machine_ends_this_worker_only_and_the_second_try_has_a_new_process(tmp_path):
    ledger, space, folder = fresh(tmp_path, trials=2)
    child = ChildProcess(CHILD)
    pids = []
    watcher = Watcher()
    watcher.claimed = lambda *_: pids.append(child.pid)
    with pytest.raises(MachineError, match="trial 0: machine of the toy; this worker leaves"):
        work(ledger, space, folder, watcher=watcher, child=child, machine_at=9.0)
    assert pids == [None, None], "none lives when the second try starts"
    assert not ledger.record().stopping
    assert work(ledger, space, folder)[0] == "done"


def test_bad_data_stops_the_study_as_a_persons_mistake(tmp_path):
    ledger, space, folder = fresh(tmp_path, trials=2)
    with pytest.raises(UserError, match="input of the toy"):
        work(ledger, space, folder, input_at=9.0)
    assert "input of the toy" in ledger.record().stop_reason


def test_a_child_that_is_terminated_uses_up_no_retry(tmp_path):
    ledger, space, folder = fresh(tmp_path, trials=1)
    child, kills, watcher = ChildProcess(CHILD), [], Watcher()

    def end(number, event):
        if event.step == 1 and len(kills) < 5:
            kills.append(os.kill(child.pid, signal.SIGTERM))
            (folder / "trials" / "0000" / "checkpoints").rename(folder / f"gone-{len(kills)}")

    watcher.on_progress = end
    assert work(ledger, space, folder, watcher=watcher, child=child, step_seconds=0.2)[0] == "done"
    assert len(kills) == 5
    assert ledger.history()[0].state == "finished"


def test_checkpoints_are_there_while_they_can_be_needed(tmp_path):
    ledger, space, folder = fresh(tmp_path)
    watcher, most = Watcher(), 0

    def look(number, event):
        nonlocal most
        resting = [trial.number for trial in ledger.history() if trial.state == "paused"]
        there = {int(path.parent.name) for path in folder.glob("trials/*/checkpoints")}
        assert there <= {number, *resting}
        most = max(most, len(there))

    watcher.on_progress = look
    work(ledger, space, folder, watcher=watcher)
    assert most >= 2
    assert not list(folder.glob("trials/*/checkpoints*")), "nothing can go on any more"


@pytest.mark.parametrize("budget", ["disk_gb: 0", "disk_gb: 1"])
def test_without_its_checkpoint_a_promoted_one_trains_again_to_the_same_result(tmp_path, budget):
    unbroken, space, folder = fresh(tmp_path / "a")
    work(unbroken, space, folder)
    text = SPACE.replace("strategy: STRATEGY", f"strategy: halving, {budget}")
    ledger, space, folder = fresh(tmp_path / "b", text=text)
    work(ledger, space, folder)
    assert told(ledger) == told(unbroken)
    again = len(steps_done(folder)) - len(set(steps_done(folder)))
    assert (again > 0) == budget.endswith("0")


def test_a_search_out_of_time_brings_its_leader_to_the_end(tmp_path):
    ledger, space, folder = fresh(tmp_path, trials=1000)
    outcome, _ = work(ledger, space, folder, deadline=time.monotonic() + 6, step_seconds=0.01)
    history = ledger.history()
    assert outcome == "timeout"
    assert len(history) < 1000
    assert any(trial.state == "finished" for trial in history)
    assert not any(trial.state == "running" for trial in history)


def test_a_lost_lease_cannot_commit(tmp_path):
    ledger, space, _folder = fresh(tmp_path, trials=1)
    from search.process_id import ProcessId

    scheduler_config = space.budget.scheduler_config
    slow = ledger.claim(ProcessId("elsewhere", "m", 1, "1"), scheduler_config)
    assert ledger.claim(ProcessId.current(), scheduler_config) is None, "it is held"
    with ledger.storage.write() as connection:
        connection.exec_driver_sql("UPDATE tmsearch_configuration SET lease_until = 0")
    quick = ledger.claim(ProcessId.current(), scheduler_config)
    assert quick.number == slow.number
    assert quick.token > slow.token
    assert ledger.commit(slow, 0.1, {}, scheduler_config) is None
    assert not ledger.fail(slow, "diverged", "too late")
    assert not ledger.release(slow)
    assert ledger.renew(slow, {})[0] is False
    assert ledger.commit(quick, 0.2, {}, scheduler_config) == "paused"
    assert ledger.history()[0].curve == {2: 0.2}


LEFT_BY_A_SWEEP = ("checkpoints.discarded/claim-000001/step-000002", "checkpoints/claim-000001.discarded/step-000002")


@pytest.mark.parametrize("left", LEFT_BY_A_SWEEP)
def test_a_later_run_removes_what_a_killed_sweep_left(tmp_path, left):
    ledger, space, folder = fresh(tmp_path)
    work(ledger, space, folder)
    (folder / "trials" / "0001" / left).mkdir(parents=True)
    work(ledger, space, folder)
    assert not [path for path in folder.rglob("*") if path.name.startswith("checkpoints")]


@pytest.mark.parametrize("left", LEFT_BY_A_SWEEP)
def test_a_pool_removes_what_its_last_workers_sweep_left(tmp_path, left):
    ledger, space, folder = fresh(tmp_path)
    work(ledger, space, folder)
    (folder / "trials" / "0001" / left).mkdir(parents=True)
    checkpoint_gc.clean_up(ledger, space.budget.scheduler_config, folder, None)
    assert not [path for path in folder.rglob("*") if path.name.startswith("checkpoints")]


@pytest.mark.parametrize("left", LEFT_BY_A_SWEEP)
def test_doctor_finds_and_removes_what_a_killed_sweep_left(tmp_path, left):
    ledger, space, folder = fresh(tmp_path)
    interrupts, watcher = Interrupts(), Watcher()
    watcher.on_progress = lambda number, event: setattr(interrupts, "stop", number >= 3)
    work(ledger, space, folder, interrupts=interrupts, watcher=watcher, step_seconds=0.02)
    (folder / "trials" / "0001" / left).mkdir(parents=True)
    for _ in range(2):
        doctor = Doctor(ledger, folder, lambda path, trial: None)
        files = next(diagnosis for diagnosis in doctor.examine() if diagnosis.name == "files")
        if files.repair is not None:
            files.repair()
    assert files.state == "ok"
    assert not list(folder.rglob("*.discarded"))
