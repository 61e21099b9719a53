"""A tracker's process beside a study: what it gets, and that one that fails or hangs holds nothing up."""

import json
import sys
import time

import pytest

from search.execution.child_process import ChildProcess
from search.storage import ownership
from tests.support.study_builder import hostile_study
from tmsearch.cli.services.tracking import follower as following
from tmsearch.cli.services.tracking.follower import Following, followed
from tmsearch.cli.services.tracking.study_runs import StudyRuns, WakingListener
from tmsearch.tracking.memory import Memory, memory_file

# Writes each job's run to a file; answers as it is told.
TOY = """
import json, sys, time
for line in sys.stdin:
    run = json.loads(line)
    with open({file!r}, "a") as stream:
        stream.write(run["name"] + " " + str(run["facts"].get("state")) + "\\n")
    {answer}
"""
ANSWERS = {
    "mirrored": "print(json.dumps({'event': 'mirrored', 'complete': True}), flush=True)",
    "fails": "print(json.dumps({'event': 'failure', 'reason': 'ConnectionError: away'}), flush=True)",
    "dies": "sys.exit(3)",
    "hangs": "time.sleep(600)",
}


@pytest.fixture(scope="module")
def ledger(tmp_path_factory):
    return hostile_study(tmp_path_factory.mktemp("study"), over=False)


@pytest.fixture
def follow(ledger, tmp_path, monkeypatch):
    """Lets a toy tracker of some behaviour follow the study to its end: (jobs that it got, notices)."""

    def run(behaviour, names=("trackio",), hurry=False):
        jobs, notices = tmp_path / "jobs", []
        program = TOY.format(file=str(jobs), answer=ANSWERS[behaviour])

        def process(command, log, environment):
            assert command[-2] in names
            assert environment["DO_NOT_TRACK"] == "1"
            return ChildProcess([sys.executable, "-c", program], log, environment)

        monkeypatch.setattr(following, "ChildProcess", process)
        runs = StudyRuns(ledger, ownership.checked_folder(ledger))
        with followed(names, Following(tmp_path, runs, notices.append, lambda: hurry)) as wake:
            wake()
        return jobs.read_text().splitlines() if jobs.exists() else [], notices

    return run


ALL = ["trial-0000 pruned", "trial-0001 finished", "trial-0002 failed", "trial-0003 paused"]


def test_every_trial_is_a_run(follow):
    jobs, notices = follow("mirrored")
    assert jobs[:4] == ALL
    assert notices == []


def test_what_is_mirrored_is_not_sent_again(follow, ledger, tmp_path):
    memory = Memory(memory_file(tmp_path / "trackers", "trackio"))
    runs = StudyRuns(ledger, ownership.checked_folder(ledger))()
    for run in runs[:3]:
        memory.keep(run.id, 1, run.signature)
    jobs, _ = follow("mirrored")
    assert set(jobs) == {"trial-0003 paused"}


@pytest.mark.parametrize(("behaviour", "reason"), [("fails", "ConnectionError: away"), ("dies", "exit code 3")])
def test_one_that_fails_is_reported_once(follow, behaviour, reason):
    jobs, notices = follow(behaviour)
    assert set(jobs) == {"trial-0000 pruned"}, "the others are not tried: the tracker is away"
    (line,) = notices
    assert line.startswith(f"trackio is not up to date: {reason}; it is caught up later")


def test_one_that_hangs_is_given_up(follow, monkeypatch):
    monkeypatch.setattr(following, "CLOSING_SECONDS", 0.5)
    began = time.monotonic()
    _, notices = follow("hangs")
    assert time.monotonic() - began < 30
    assert "its client does not answer" in notices[0]


def test_a_person_who_leaves_does_not_wait(follow, monkeypatch):
    monkeypatch.setattr(following, "HURRY_SECONDS", 0.3)
    began = time.monotonic()
    _, notices = follow("hangs", hurry=True)
    assert time.monotonic() - began < 30
    assert len(notices) <= 1


def test_runs_are_named_after_the_study_and_the_trial(ledger):
    runs = StudyRuns(ledger, ownership.checked_folder(ledger))
    first, finished, failed, _ = runs()
    digest = runs.project.removeprefix("made_up-")
    assert (first.id, first.name) == (f"{digest}-0000", "trial-0000")
    assert [step for step, _ in finished.rungs] == [20, 40, 80]
    assert set(finished.rungs[0][1]) == {"wer", "wer_raw", "cer", "train_seconds", "eval_seconds"}
    assert (failed.failed, failed.facts["reason"]) == (True, "out of memory")
    json.dumps(finished.facts, allow_nan=False)


def test_results_and_failures_wake_the_trackers():
    class Listener:
        def __getattr__(self, name):
            return lambda *words: None

    woken = []
    listener = WakingListener(Listener(), lambda: woken.append(1))
    listener.claimed(1, {}, 0, 20)
    listener.rung(1, 20, 0.5, {}, "paused")
    listener.failed(1, "oom", "out of memory")
    assert len(woken) == 2
