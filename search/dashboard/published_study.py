"""Optuna's study of a ledger: its mark, whose it is, its states while nobody works on it, and its end."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.trial import TrialState

from search.dashboard.frozen_trial import published_state
from search.dashboard.optuna_batch import OptunaBatch
from search.dashboard.publisher_lease import PublisherLease
from search.storage.database import Storage
from search.storage.ledger import Ledger

# The user attribute that ties a trial to its configuration. Optuna's own number may differ: a trial that a person
# deleted or finished in the dashboard gets a successor.
CONFIGURATION = "configuration"
MARK = "tmsearch"  # the user attribute of a study that tmsearch published: the version that made it


def is_own(storage: Storage, name: str) -> bool:
    """Whether the Optuna study of this name, if there is one, was made by tmsearch, with all its trials."""
    try:
        study = optuna.load_study(study_name=name, storage=storage.optuna)
    except KeyError:
        return True
    trials = study.get_trials(deepcopy=False)
    return bears_mark(study.user_attrs, bool(trials)) and all(CONFIGURATION in trial.user_attrs for trial in trials)


def delete_published(storage: Storage, name: str) -> list[str]:
    """Delete the published study, unless it has what tmsearch did not make; returns a remark then."""
    if not is_own(storage, name):
        return [f"the Optuna study {name} in {storage.display_name} was left: it has trials that tmsearch did not make"]
    with contextlib.suppress(KeyError):
        optuna.delete_study(study_name=name, storage=storage.optuna)
    return []


def bears_mark(attributes: Mapping[str, Any], has_trials: bool) -> bool:
    """Whether tmsearch made this study: it bears its mark, or is as empty as a kill after its creation leaves it."""
    return MARK in attributes or not (set(attributes) - {"space", "fingerprint"} or has_trials)


def show_waiting(ledger: Ledger) -> None:
    """Show as waiting what a worker that was killed left as running, where no worker is there to do it."""
    beside = ledger.beside()
    try:
        batch = OptunaBatch.open(beside.storage, beside.study, CONFIGURATION)
        if batch is not None and any(trial.state == TrialState.RUNNING for trial in batch.trials.values()):
            _set_waiting(beside)
    finally:
        beside.storage.close_beside()


def _set_waiting(ledger: Ledger) -> None:
    lease = PublisherLease(ledger)
    if not lease.take():
        return  # a worker publishes
    try:
        batch = OptunaBatch.open(ledger.storage, ledger.study, CONFIGURATION)
        if batch is None:
            return
        latest = batch.latest()
        for configuration in ledger.history():
            trial = latest.get(configuration.number)
            if trial is None or trial.state != TrialState.RUNNING:
                continue
            if published_state(configuration) == TrialState.WAITING:
                batch.set_state(trial, TrialState.WAITING)
        with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):  # by hand, in the dashboard
            batch.write()
    finally:
        lease.take(0.0)
