"""Follows a study through its ledger and tells a listener what its workers do, wherever they run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from search.errors import StorageUnavailableError
from search.execution.lease import Listener
from search.execution.messages import ProgressEvent
from search.records import Configuration
from search.storage.ledger import Ledger


class Monitor:
    """Tells a listener what changed in a study since the last look; the state at its creation is not told."""

    def __init__(self, ledger: Ledger, listener: Listener) -> None:
        self._ledger = ledger
        self._listener = listener
        self._trials = {trial.number: trial for trial in ledger.history()}
        self._facts: Mapping[str, Any] = ledger.facts()
        self._is_storage_away = False

    def try_poll(self) -> None:
        """As `poll`; a database that is away is reported once and tried again the next time."""
        try:
            self.poll()
        except StorageUnavailableError as error:
            if not self._is_storage_away:
                self._listener.notice(f"{error}; the workers wait for it")
            self._is_storage_away = True
        else:
            if self._is_storage_away:
                self._listener.notice("the database answers again")
            self._is_storage_away = False

    def poll(self) -> None:
        """Tell what is new. Raises StorageUnavailableError."""
        facts = self._ledger.facts()
        for key in sorted(set(facts) - set(self._facts)):
            self._listener.fact(key, facts[key])
        self._facts = facts
        history = self._ledger.history()
        for trial in history:
            self._tell_changes(self._trials.get(trial.number), trial)
        locations = {worker.identity: worker.location for worker in self._ledger.workers()}
        running = [trial for trial in history if trial.state == "running" and trial.params is not None]
        self._listener.at_work({trial.number: locations.get(trial.worker or "", "") for trial in running})

    def _tell_changes(self, before: Configuration | None, trial: Configuration) -> None:
        if trial.state == "running" and trial.params is None:
            return  # told once its parameters are drawn
        new_rungs = trial.rungs[len(before.rungs) if before else 0 :]
        for rung in new_rungs:
            is_final = rung is new_rungs[-1] and trial.state in ("pruned", "finished")
            state = trial.state if is_final else "paused"
            self._listener.rung(trial.number, rung.step, rung.value, rung.metrics, state)
        if trial.failure and not (before and before.failure):
            self._listener.failed(trial.number, trial.failure, trial.reason or "")
        is_new_claim = trial.token != (before.token if before else 0)
        is_new_progress = before is None or trial.progress != before.progress
        if trial.state == "running" and is_new_claim:
            self._listener.claimed(trial.number, trial.params or {}, trial.steps, trial.target)
        elif trial.state == "running" and trial.progress and is_new_progress:
            self._listener.progress(trial.number, ProgressEvent.from_json(trial.progress))
        self._trials[trial.number] = trial
