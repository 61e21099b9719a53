"""What Optuna shows of a study, also after somebody changed it there."""

import dataclasses
import errno
import os

import optuna
import pytest
import sqlalchemy as sa
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from search.dashboard.frozen_trial import curve, published_value
from search.dashboard.optuna_batch import OptunaBatch
from search.dashboard.publisher import Publisher
from search.execution.worker import Interrupts
from search.imported import COMPARES, MEASURE
from search.records import IMPORTED, Rung
from search.storage import entries
from search.storage.entries import Entry
from tests.support.toy_study import Watcher, toy_space, toy_storage, toy_study, work


@pytest.fixture
def done(tmp_path):
    space, storage = toy_space(tmp_path), toy_storage(tmp_path)
    ledger = toy_study(storage, space, 6)
    work(ledger, space, tmp_path / "toy")
    return ledger, space, tmp_path / "toy"


def published(ledger):
    return optuna.load_study(study_name="toy", storage=ledger.storage.optuna)


def test_an_ordinary_optuna_study(done):
    ledger, _, _ = done
    study = published(ledger)
    history = ledger.history()
    assert len(study.trials) == 6
    for trial, configuration in zip(study.trials, history, strict=True):
        assert trial.params == configuration.drawn
        assert trial.intermediate_values == curve(configuration)
        assert trial.state == {"finished": TrialState.COMPLETE, "pruned": TrialState.PRUNED}[configuration.state]
        assert trial.user_attrs["configuration"] == configuration.number
        assert trial.user_attrs["steps"] == configuration.steps
        assert trial.user_attrs["train_seconds"] == len(configuration.rungs) * 1.0
        assert trial.user_attrs["reason"] == configuration.reason
    best = min(configuration.value for configuration in history if configuration.state == "finished")
    assert study.best_value == published_value(best)
    assert set(optuna.importance.get_param_importances(study)) == {"x", "kind"}
    assert study.user_attrs["fingerprint"] == ledger.record().fingerprint
    assert study.user_attrs["space"]["study"] == "toy"


def test_publishing_again_changes_nothing(done):
    ledger, space, folder = done
    before = published(ledger).trials
    Publisher(ledger, space, pytest.fail).check()
    Publisher(ledger, space, pytest.fail).publish()
    work(ledger, space, folder)
    assert published(ledger).trials == before


def test_a_kill_between_trial_and_ledger_makes_no_second_trial(done, monkeypatch):
    ledger, space, _ = done
    with ledger.storage.write() as connection:
        connection.exec_driver_sql("UPDATE tmsearch_configuration SET published = 0")
    Publisher(ledger, space, pytest.fail).publish()
    assert len(published(ledger).trials) == 6


def test_a_study_deleted_in_the_dashboard_is_noticed_and_published_again(done):
    ledger, space, folder = done
    before = ledger.history()
    optuna.delete_study(study_name="toy", storage=ledger.storage.optuna)
    _, watcher = work(ledger, space, folder)
    assert any("deleted in the dashboard" in notice for notice in watcher.notices)
    assert [trial.user_attrs["configuration"] for trial in published(ledger).trials] == list(range(6))
    assert [configuration.curve for configuration in ledger.history()] == [
        configuration.curve for configuration in before
    ]


def test_a_trial_told_in_the_dashboard_is_noticed_and_gets_a_successor(tmp_path):
    space, storage = toy_space(tmp_path), toy_storage(tmp_path)
    ledger = toy_study(storage, space, 3)

    def meddle(number, event):
        if (number, event.step) == (0, 1):
            storage.optuna.set_trial_state_values(storage.optuna.get_all_trials(1)[0]._trial_id, TrialState.FAIL)

    watcher = Watcher()
    watcher.on_progress = meddle
    assert work(ledger, space, tmp_path / "toy", watcher=watcher, step_seconds=0.05)[0] == "done"
    trials = [trial for trial in published(ledger).trials if trial.user_attrs["configuration"] == 0]
    assert [trial.state for trial in trials] == [TrialState.FAIL, TrialState.PRUNED]
    assert trials[1].user_attrs["succeeds_trial"] == trials[0].number
    assert trials[1].intermediate_values == ledger.history()[0].curve


def test_a_trial_finished_while_it_is_published_gets_a_successor(done, monkeypatch):
    ledger, space, _ = done
    optuna.delete_study(study_name="toy", storage=ledger.storage.optuna)
    with ledger.storage.write() as connection:
        connection.exec_driver_sql("UPDATE tmsearch_configuration SET published = 0")
    write_attributes = Publisher._write_attributes

    def finish_by_hand_first(publisher, batch, trial, configuration):
        if configuration.number == 0 and len(published(ledger).trials) == 6:
            ledger.storage.optuna.set_trial_state_values(trial.trial_id, TrialState.FAIL)
            monkeypatch.undo()
        write_attributes(publisher, batch, trial, configuration)

    monkeypatch.setattr(Publisher, "_write_attributes", finish_by_hand_first)
    Publisher(ledger, space, pytest.fail).finish()
    trials = [trial for trial in published(ledger).trials if trial.user_attrs["configuration"] == 0]
    assert [trial.state for trial in trials] == [TrialState.FAIL, TrialState.PRUNED]


def test_told_between_two_runs(tmp_path):
    space, storage = toy_space(tmp_path), toy_storage(tmp_path)
    ledger = toy_study(storage, space, 3)
    interrupts, watcher = Interrupts(), Watcher()
    watcher.on_progress = lambda number, event: setattr(interrupts, "stop", event.step >= 3)
    work(ledger, space, tmp_path / "toy", interrupts=interrupts, watcher=watcher, step_seconds=0.05)
    (trial,) = published(ledger).trials[-1:]
    storage.optuna.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [0.0])
    _, watcher = work(ledger, space, tmp_path / "toy")
    assert any("finished in the dashboard" in notice for notice in watcher.notices)
    assert all(configuration.ended for configuration in ledger.history())


def space_named(space, name):
    return dataclasses.replace(space, study=name)


def test_failures_as_optuna_sees_them(tmp_path):
    space, storage = toy_space(tmp_path), toy_storage(tmp_path)
    ledger = toy_study(storage, space, 2)
    work(ledger, space, tmp_path / "toy", diverge_at=9.0)
    trial = published(ledger).trials[0]
    assert trial.state == TrialState.PRUNED
    assert trial.user_attrs["reason"] == "loss is NaN at step 1"
    memory = toy_study(toy_storage(tmp_path), space_named(space, "memory"), 2)
    work(memory, space_named(space, "memory"), tmp_path / "memory", oom_at=9.0)
    trial = optuna.load_study(study_name="memory", storage=storage.optuna).trials[0]
    assert trial.state == TrialState.PRUNED
    assert trial.constraints == {"memory": 1.0}, "infeasible, as samplers and dashboards read it"
    other = toy_study(toy_storage(tmp_path), dataclasses.replace(space, study="other"), 2)
    work(other, space, tmp_path / "other", crash_at=9.0)
    assert optuna.load_study(study_name="other", storage=storage.optuna).trials[0].state == TrialState.FAIL
    other.requeue([0])
    work(other, space, tmp_path / "other")
    trials = optuna.load_study(study_name="other", storage=storage.optuna).trials
    assert [trial.state for trial in trials if trial.user_attrs["configuration"] == 0][-1].is_finished()
    assert other.history()[0].state in ("finished", "pruned")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_an_artifacts_folder_that_takes_nothing_delays_publishing_and_no_training(tmp_path, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number), "artifacts/x")

    space = toy_space(tmp_path)
    ledger = toy_study(toy_storage(tmp_path), space, 3)
    monkeypatch.setattr(Publisher, "_publish_trial", refuse)
    outcome, watcher = work(ledger, space, tmp_path / "toy")
    assert outcome == "done"
    assert all(trial.rungs for trial in ledger.history())
    reports = {notice for notice in watcher.notices if "publishing to Optuna waits" in notice}
    assert reports == {f"artifacts/x: {os.strerror(number)}; publishing to Optuna waits, training continues"}
    monkeypatch.undo()
    work(ledger, space, tmp_path / "toy")
    assert len(published(ledger).trials) == 3


def test_publishing_records_many_configurations_in_few_transactions(tmp_path):
    space, storage = toy_space(tmp_path), toy_storage(tmp_path)
    ledger = toy_study(storage, space, 60)
    for _ in range(60):
        ledger.append("added", {"x": 1.0, "kind": "a"}, {"x": 1.0, "kind": "a"})
    transactions = []
    sa.event.listen(storage.engine, "commit", transactions.append)
    assert Publisher(ledger, space, pytest.fail).publish()
    assert len(published(ledger).trials) == 60
    assert all(trial.published == trial.revision for trial in ledger.history())
    assert len(transactions) < 30, "not several for each of them"


def test_what_was_trained_on_other_terms_is_published_without_a_value(done):
    """Optuna's best trial and its importances are of the study's own trials."""
    ledger, space, _ = done
    drawn = {"x": 1.0, "kind": "plain"}
    terms = [("value", False), ("wer_raw", True), ("value", True)]
    logs = []
    for index, (measure, compares) in enumerate(terms):
        rung = Rung(8, 0.001 if index < 2 else 5.0, {MEASURE: measure, COMPARES: compares})
        logs.append(Entry(f"log{index}", IMPORTED, drawn if compares else {}, drawn, "finished", (rung,), "by hand"))
    entries.enter(ledger, logs)
    before = published(ledger)
    Publisher(ledger, space, pytest.fail).publish()
    study = published(ledger)
    assert study.best_value == before.best_value
    assert set(optuna.importance.get_param_importances(study)) == {"x", "kind"}
    foreign, raw, alike = study.trials[-3:]
    for trial in (foreign, raw):
        assert (trial.state, trial.value, trial.intermediate_values) == (TrialState.PRUNED, None, {})
    assert (alike.state, alike.value) == (TrialState.COMPLETE, 5.0)
    Publisher(ledger, space, pytest.fail).check()
    Publisher(ledger, space, pytest.fail).publish()
    assert len(published(ledger).trials) == len(study.trials)


def test_a_round_reads_the_trials_that_it_changes_and_no_others(done, monkeypatch):
    """In a study of thousands, reading all of them for each result was the square of their number."""
    ledger, space, _ = done
    read = []
    real = OptunaBatch.load

    def load(batch, trials, **options):
        read.extend(trial.configuration for trial in trials)
        return real(batch, trials, **options)

    def all_trials(*arguments, **named):
        raise AssertionError("all trials are read")

    with ledger.storage.write() as connection:
        connection.exec_driver_sql("UPDATE tmsearch_configuration SET published = 0 WHERE number = 1")
    monkeypatch.setattr(OptunaBatch, "load", load)
    monkeypatch.setattr(RDBStorage, "get_all_trials", all_trials)
    assert Publisher(ledger, space, print).publish()
    assert read == [1]
