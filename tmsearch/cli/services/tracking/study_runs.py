"""A study's trials as a tracker's runs, and the listener that tells trackers when there is something new."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from search.execution.lease import Listener
from search.paths import trial_folder
from search.records import IMPORTED, Configuration, Rung
from search.storage import ownership
from search.storage.ledger import Ledger
from tmsearch.tracking.tracker import TrackedRun

_NOT_RATES = ("errors", "saved_step", "clips", "micro_batch", "repeated_seconds")


class StudyRuns:
    """The runs of a study, one a trial that has a result or has ended; trials of hand-run trainings are left out."""

    def __init__(self, ledger: Ledger, folder: Path) -> None:
        self._ledger = ledger
        self._folder = folder
        self._record = ledger.record()
        self.project = ownership.unique_name(ledger)

    def __call__(self) -> list[TrackedRun]:
        history = self._ledger.history()
        return [self._run(trial) for trial in history if trial.origin != IMPORTED and (trial.rungs or trial.ended)]

    def _run(self, trial: Configuration) -> TrackedRun:
        folder = trial_folder(self._folder, trial.number)
        events = self._folder / "tensorboard" / folder.name
        digest = self.project.rpartition("-")[2]
        return TrackedRun(
            id=f"{digest}-{trial.number:04d}",
            name=f"trial-{trial.number:04d}",
            project=self.project,
            params=dict(trial.params or {}),
            facts=self._facts(trial),
            ended=trial.ended,
            failed=trial.state == "failed",
            created=self._record.created,
            rungs=[(rung.step, _rates(rung)) for rung in trial.rungs],
            data=dict(self._record.space["data"]),
            scores=str(folder) if folder.is_dir() else None,
            events=str(events) if events.is_dir() else None,
        )

    def _facts(self, trial: Configuration) -> dict[str, Any]:
        # A trial that is trained between two results is paused for whoever looks at its results.
        facts = {
            "study": self._record.name,
            "state": trial.state if trial.ended else "paused",
            "reason": trial.reason if trial.ended else None,
            "origin": trial.origin,
            "study_seed": self._record.seed,
            "objective": self._record.objective,
            "value": trial.value,
            "steps": trial.steps,
            "train_seconds": trial.total("train_seconds"),
        }
        return {name: value for name, value in facts.items() if value is not None}


def _rates(rung: Rung) -> dict[str, float]:
    """What was measured at a rung, as numbers that JSON knows."""
    rates = {}
    for name, value in {"wer": rung.value, **rung.metrics}.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if is_number and name not in _NOT_RATES and math.isfinite(value):
            rates[name] = float(value)
    return rates


class WakingListener:
    """Passes a study's events on to another listener, and wakes the trackers at each result."""

    def __init__(self, listener: Listener, wake: Callable[[], None]) -> None:
        self._listener = listener
        self._wake = wake
        self.claimed = listener.claimed
        self.progress = listener.progress
        self.fact = listener.fact
        self.notice = listener.notice
        self.at_work = listener.at_work

    def rung(self, number: int, step: int, value: float, metrics: Mapping[str, Any], state: str) -> None:
        self._listener.rung(number, step, value, metrics, state)
        self._wake()

    def failed(self, number: int, failure: str, reason: str) -> None:
        self._listener.failed(number, failure, reason)
        self._wake()
