"""Training processes that misbehave: each is one clear failure in bounded time, as a bug of the program is."""

import sys
import time

import pytest

from search.errors import RunError
from search.execution import wire
from search.execution.child_process import ChildProcess, run_job
from search.execution.messages import CheckJob, Failure
from tests.support.toy_study import toy_space, toy_storage, toy_study, work

ANSWERS = {
    "garbage": (r"b'\x00\x01 garbage\n'", "not JSON"),
    "not UTF-8": (r"""b'{"event": "\xff"}\n'""", "not UTF-8"),
    "no object": (r"b'[1]\n'", "not a JSON object"),
    "deep": (r"b'[' * 100000 + b'\n'", "nested too deep|not JSON"),
    "missing key": (r"""b'{"event": "progress"}\n'""", "no 'step'"),
    "wrong type": (r"""b'{"event": "progress", "step": "one"}\n'""", "'step' is not an integer"),
    "NaN": (r"""b'{"event": "result", "value": NaN, "metrics": {}}\n'""", "NaN or infinity"),
    "infinity inside": (r"""b'{"event": "fact", "key": "k", "value": [Infinity]}\n'""", "NaN or infinity"),
    "too long": (r"""b'x' * (2**20) + b'\n'""", "longer than"),
    "endless": (None, "longer than"),
    "unknown event": (r"""b'{"event": "song"}\n'""", "unknown event"),
    "an answer to another job": (
        r"""b'{"event": "checked", "data": {}, "models": {}, "flops_per_second": null}\n'""",
        "unexpected answer",
    ),
}
ANSWERING = "import sys, time; sys.stdin.readline(); sys.stdout.buffer.write({}); sys.stdout.flush(); time.sleep(600)"
ENDLESS = """
import sys
sys.stdin.readline()
while True:
    sys.stdout.buffer.write(b"x" * 65536)
"""


def misbehaving(name: str) -> ChildProcess:
    answer = ANSWERS[name][0]
    return ChildProcess([sys.executable, "-c", ENDLESS if answer is None else ANSWERING.format(answer)])


@pytest.fixture(autouse=True)
def short_lines(monkeypatch):
    monkeypatch.setattr(wire, "MAX_LINE_BYTES", 2**19)


@pytest.mark.parametrize("name", ANSWERS)
def test_a_segment_of_a_misbehaving_process_ends_as_a_bug_does(tmp_path, name):
    ledger = toy_study(toy_storage(tmp_path), toy_space(tmp_path), 2)
    child = misbehaving(name)
    began = time.monotonic()
    with pytest.raises(RunError, match=ANSWERS[name][1]) as error:
        work(ledger, toy_space(tmp_path), tmp_path / "toy", child=child)
    assert time.monotonic() - began < 30
    assert "\n" not in str(error.value)
    assert [trial.state for trial in ledger.history()] == ["paused"], "the trial is kept to be run"
    assert ledger.record().stop_reason
    ledger.set_trials(2)
    assert work(ledger, toy_space(tmp_path), tmp_path / "toy")[0] == "done"


@pytest.mark.parametrize("name", ["garbage", "endless"])
def test_a_check_by_a_misbehaving_process_fails_and_the_next_job_starts_another(name):
    child = misbehaving(name)
    for _ in range(2):
        answer = run_job(child, CheckJob({}, (), measure=False, objective="wer"))
        assert isinstance(answer, Failure)
        assert "cannot be read" in answer.reason
        assert child.pid is None


def test_a_job_that_cannot_be_sent_is_a_failure_and_starts_nothing():
    child = ChildProcess([sys.executable, "-c", "raise SystemExit('started')"])
    answer = run_job(child, CheckJob({"share": float("nan")}, (), measure=False, objective="wer"))
    assert isinstance(answer, Failure)
    assert "NaN" in answer.reason
    assert child.pid is None
