"""What every ledger does: the one in a database in full, the one in memory as far as a simulation needs it."""

import json
from dataclasses import replace

import pytest

from search.process_id import ProcessId
from search.schedulers.scheduler import SchedulerConfig
from search.simulation.memory_ledger import MemoryLedger
from search.storage import reader
from search.storage.claims import SegmentOutcome, SignIn
from search.storage.database import open_storage
from search.storage.ledger import Ledger
from search.storage.reader import StoredMetrics
from tests.support.toy_study import toy_space, toy_storage, toy_study

RULE = SchedulerConfig((2, 4, 8), "halving", 2, max_full=0)
ME = ProcessId.current()


def database_ledger(name, request, tmp_path):
    storage = open_storage(request.getfixturevalue("postgres")) if name == "postgresql" else toy_storage(tmp_path)
    return toy_study(storage, toy_space(tmp_path), 4)


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger(request, tmp_path):
    return database_ledger(request.param, request, tmp_path)


@pytest.fixture(params=["sqlite", "memory", "postgresql"])
def any_ledger(request, tmp_path):
    if request.param == "memory":
        return MemoryLedger("toy", 4)
    return database_ledger(request.param, request, tmp_path)


def begin(ledger, x=1.0):
    claim = ledger.claim(ME, RULE)
    assert ledger.set_params(claim, {"x": x}, {"x": x}, "sampled")
    return claim


def test_a_whole_ladder(any_ledger):
    for x in (4.0, 1.0, 3.0, 2.0):
        while (claim := any_ledger.claim(ME, RULE)).params is not None:
            any_ledger.commit(claim, claim.params["x"] / claim.last_step, {}, RULE)
        any_ledger.set_params(claim, {"x": x}, {"x": x}, "sampled")
        assert any_ledger.commit(claim, x / claim.last_step, {"errors": [int(x)]}, RULE) == "paused"
    while (claim := any_ledger.claim(ME, RULE)) is not None:
        any_ledger.commit(claim, claim.params["x"] / claim.last_step, {}, RULE)
    history = any_ledger.history()
    assert [configuration.state for configuration in history] == ["pruned", "finished", "pruned", "pruned"]
    assert history[1].curve == {2: 0.5, 4: 0.25, 8: 0.125}
    assert history[1].errors(2) == [1]
    assert history[0].reason == "pruned at step 2 by halving"
    assert all(configuration.ended for configuration in history)
    any_ledger.set_trials(5)
    assert any_ledger.claim(ME, RULE).number == 4


def test_a_result_is_recorded_once(any_ledger):
    claim = begin(any_ledger)
    assert any_ledger.commit(claim, 0.2, {}, RULE) == "paused"
    assert any_ledger.commit(claim, 0.2, {}, RULE) is None
    assert not any_ledger.fail(claim, "oom", "late")
    assert any_ledger.history()[0].curve == {2: 0.2}


def test_a_lost_claim_changes_nothing(ledger):
    old = begin(ledger)
    assert ledger.release(old)
    new = ledger.claim(ME, RULE)
    assert (new.number, new.first_step, new.last_step) == (0, 0, 2)
    assert new.token > old.token
    assert ledger.commit(old, 0.1, {}, RULE) is None
    assert not ledger.fail(old, "oom", "late")
    assert not ledger.release(old)
    assert ledger.renew(old, {}) == (False, False)
    assert ledger.renew(new, {"step": 1}) == (True, False)
    assert ledger.commit(new, 0.2, {}, RULE) == "paused"
    assert ledger.commit(new, 0.2, {}, RULE) is None, "a result is recorded once"


def test_a_segment_that_was_given_back_comes_first(ledger):
    first = begin(ledger)
    ledger.commit(first, 0.5, {}, RULE)
    second = begin(ledger, 2.0)
    third = begin(ledger, 3.0)
    ledger.release(second, "why")
    assert ledger.history()[1].reason == "why"
    again = ledger.claim(ME, RULE)
    assert (again.number, again.params) == (1, {"x": 2.0})
    assert ledger.commit(third, 0.1, {}, RULE) == "paused"


def test_crashes_are_retried_twice(ledger):
    for crashes in range(3):
        claim = begin(ledger) if crashes == 0 else ledger.claim(ME, RULE)
        assert ledger.crashed(claim, "died") == ("failed" if crashes == 2 else "paused")
    assert ledger.history()[0].failure == "crashed"
    assert ledger.requeue([0, 7]) == [0]
    claim = ledger.claim(ME, RULE)
    assert claim.number == 0
    assert ledger.crashed(claim, "died") == "paused", "counted anew"
    assert ledger.crashed(claim, "died again") is None, "it is no longer ours"


def test_queued_by_hand_and_stopped(ledger):
    assert ledger.append("added", {"x": 9.0}, {"x": 9.0}) == 0
    assert ledger.claim(ME, RULE).params == {"x": 9.0}
    ledger.request_stop()
    assert ledger.claim(ME, RULE) is None
    ledger.set_trials(9)
    assert ledger.claim(ME, RULE).number == 1


def test_facts_stay_and_limits_come_down(ledger):
    ledger.add_fact("one", 1)
    ledger.add_fact("one", 2)
    for limit in (8, 4, 6):
        ledger.lower_fact("memory", limit)
    facts = ledger.facts()
    assert (facts["one"], facts["memory"]) == (1, 4)


def test_nothing_new_where_time_runs_out(any_ledger):
    claim = begin(any_ledger)
    assert any_ledger.claim(ME, RULE, closing=True) is None
    any_ledger.commit(claim, 0.5, {}, RULE)
    last = any_ledger.claim(ME, RULE, closing=True)
    assert (last.number, last.first_step, last.last_step) == (0, 2, 4)


def test_metrics_from_the_ledger_are_what_was_committed():
    committed = [
        {"train_seconds": 1.5, "errors": [0, 12, 3], "clips": 3},
        {"errors": []},
        {"errors": [1.5]},
        {"note": '"errors": [1, 2]', "errors": [4]},
        {"nested": {"errors": [7]}},
        {"nested": {"errors": [7]}, "errors": [8, 9]},
        {"errors": ["a]", None]},
        {},
    ]
    for metrics in committed:
        stored = StoredMetrics(json.dumps(metrics))
        assert dict(stored) == metrics
        assert stored == metrics
        assert {**stored}.get("errors") == metrics.get("errors")
    assert StoredMetrics('{"errors": [1]}') != StoredMetrics('{"errors": [2]}')


def test_a_result_and_the_next_claim_are_one_transaction_that_may_be_repeated(ledger):
    config = replace(RULE, rungs=(2, 4))
    claim, there = begin(ledger), ProcessId("elsewhere", "other", 7, "7")
    result = SegmentOutcome(1.0, {"errors": [1]}, "v1")
    state, following = ledger.commit_and_claim(claim, result, config, ME)
    assert (state, following.number, following.first_step) == ("paused", 1, 0)
    again_state, again = ledger.commit_and_claim(claim, result, config, ME, again=True)
    assert again_state == "paused"
    assert [trial.number for trial in ledger.history() if trial.state == "running"] == [again.number]
    assert (again.number, again.token) == (1, following.token + 1), "the one of the lost answer is outdated"
    assert not ledger.set_params(following, {"x": 2.0}, {"x": 2.0}, "sampled")
    assert [rung.metrics["errors"] for rung in ledger.history()[0].rungs] == [[1]], "recorded once"
    assert ledger.set_params(again, {"x": 3.0}, {"x": 3.0}, "sampled")
    ledger.release(again)
    taken = ledger.claim(there, config)
    assert taken.number == again.number
    assert ledger.commit_and_claim(again, result, config, ME) == (None, None), "nothing is claimed with a lost lease"
    assert ledger.history()[1].rungs == ()


def test_nothing_new_is_claimed_where_the_time_is_up_or_a_stop_was_asked_for(ledger):
    claim = begin(ledger)
    metrics = {"train_seconds": 2.0}
    state, following = ledger.commit_and_claim(claim, SegmentOutcome(1.0, metrics), RULE, ME, seconds_left=0.5)
    assert (state, following.number) == ("paused", 0), "the leader is brought to its end"
    ledger.request_stop()
    assert ledger.commit_and_claim(following, SegmentOutcome(0.5, metrics), RULE, ME) == ("paused", None)


def test_renewing_says_that_the_worker_is_alive_and_what_was_asked_for(ledger):
    claim = begin(ledger)
    signed = SignIn(ME, "here", "v1")
    assert ledger.renew(claim, {"step": 1}, signed) == (True, False)
    assert [(worker.location, worker.alive) for worker in ledger.workers()] == [("here", True)]
    ledger.sign_out(ME)
    ledger.request_stop()
    assert ledger.renew(claim, {"step": 2}, signed) == (True, True)
    assert [worker.location for worker in ledger.workers()] == ["here"], "also after another took it for dead"
    assert ledger.history()[0].progress == {"step": 2}
    ledger.release(claim)
    assert ledger.renew(claim, {"step": 3}, signed) == (False, True)


def test_a_history_is_read_without_reading_its_errors(ledger, monkeypatch):
    for x in (1.0, 2.0):
        claim = begin(ledger, x)
        metrics = {"train_seconds": 2.0, "eval_seconds": 1.0, "errors": [1, 2], "clips": 2}
        ledger.commit(claim, 0.5, metrics, RULE)
    parsed = []
    real = json.loads

    def counted(text):
        parsed.append(text)
        return real(text)

    monkeypatch.setattr(reader.json, "loads", counted)
    history = Ledger(ledger.storage, ledger.study).history()
    assert len(history) == 2
    texts = [text for text in parsed if "train_seconds" in text]
    assert not texts, "whoever looks for the best reads values alone"
    assert sum(trial.seconds for trial in history) == 6.0
    texts = [text for text in parsed if "train_seconds" in text]
    assert len(texts) == 2, "once each, though two costs are summed"
    assert all("[" not in text for text in texts)
    assert history[1].errors(2) == [1, 2]
