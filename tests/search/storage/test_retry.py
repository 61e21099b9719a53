"""A database that goes away: training goes on, results wait, and no answer is taken twice."""

import threading

import pytest

from search.errors import RunError
from search.execution.lease import Interrupts
from search.process_id import ProcessId
from search.storage import retry
from search.storage.database import open_storage
from tests.support.toy_study import Watcher, told, toy_space, toy_storage, toy_study, work


def test_training_goes_on_while_the_database_is_away(tmp_path, cluster, monkeypatch):
    monkeypatch.setattr(retry, "_PAUSES", (0.05, 0.2))
    space = toy_space(tmp_path)
    ledger = toy_study(open_storage(cluster.url), space, 2)
    calm = toy_study(toy_storage(tmp_path), space, 2)
    work(calm, space, tmp_path / "calm")
    watcher, done = Watcher(), []

    def away(number, event):
        if (number, event.step) == (0, 1) and not done:
            done.append(True)
            cluster.stop()
            threading.Timer(3.0, cluster.start).start()

    watcher.on_progress = away
    assert work(ledger, space, tmp_path / "toy", watcher=watcher, step_seconds=0.1)[0] == "done"
    assert told(ledger) == told(calm)
    notices = "\n".join(watcher.notices)
    assert "its results wait" in notices
    assert "the database answers again" in notices
    steps = (tmp_path / "toy" / "trials" / "steps.log").read_text().splitlines()
    assert len(steps) == len(set(steps)), "nothing was trained twice"


def test_a_database_that_stays_away_ends_the_worker_in_one_line(tmp_path, cluster, monkeypatch):
    monkeypatch.setattr(retry, "_PAUSES", (0.05,))
    space = toy_space(tmp_path)
    ledger = toy_study(open_storage(cluster.url), space, 1)
    interrupts, watcher = Interrupts(), Watcher()

    def away(number, event):
        if not interrupts.stop:
            cluster.stop()
            interrupts.stop = True  # nobody waits for a database any longer than a person wants to

    watcher.on_progress = away
    try:
        with pytest.raises(RunError, match="the database cannot be used") as caught:
            work(ledger, space, tmp_path / "toy", watcher=watcher, interrupts=interrupts, step_seconds=0.05)
        assert "\n" not in str(caught.value)
    finally:
        cluster.start()
    ledger.set_trials(1)
    with ledger.storage.write() as connection:  # the worker's process, this one, lives on
        connection.exec_driver_sql("UPDATE tmsearch_configuration SET lease_until = 0")
    assert work(ledger, space, tmp_path / "toy")[0] == "done"


def test_an_answer_that_got_lost_is_not_asked_for_twice(tmp_path):
    space = toy_space(tmp_path)
    ledger, me = toy_study(toy_storage(tmp_path), space, 4), ProcessId.current()
    scheduler_config = space.budget.scheduler_config
    lost = ledger.claim(me, scheduler_config)
    again = ledger.claim(me, scheduler_config, again=True)
    assert (again.number, again.token) == (lost.number, lost.token + 1)
    assert len(ledger.history()) == 1
    ledger.set_params(again, {"x": 1.0, "kind": "plain"}, {"x": 1.0, "kind": "plain"}, "sampled")
    assert ledger.commit(again, 0.5, {}, scheduler_config) == "paused"
    assert ledger.commit(again, 0.5, {}, scheduler_config, again=True) == "paused"
    assert len(ledger.history()[0].rungs) == 1


def test_after_a_server_came_back_those_at_work_are_waited_for(tmp_path, cluster):
    space = toy_space(tmp_path)
    ledger, scheduler_config = toy_study(open_storage(cluster.url), space, 1), space.budget.scheduler_config
    ledger.claim(ProcessId("elsewhere", "m", 1, "1"), scheduler_config)
    with ledger.storage.write() as connection:
        connection.exec_driver_sql(
            "UPDATE tmsearch_configuration SET lease_until = EXTRACT(EPOCH FROM clock_timestamp()) - 1"
        )
    # The server began a moment ago: a lease that ended since could not be renewed.
    assert ledger.claim(ProcessId.current(), scheduler_config) is None
    with ledger.storage.write() as connection:
        connection.exec_driver_sql("UPDATE tmsearch_configuration SET lease_until = 0")
    assert ledger.claim(ProcessId.current(), scheduler_config) is not None
