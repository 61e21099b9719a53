"""A study at work, followed from Python: callbacks at each rung and trial, beside whatever display there is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from search.errors import StorageUnavailableError
from search.execution.lease import Interrupts
from search.execution.messages import ProgressEvent
from search.records import Configuration
from search.storage.ledger import Ledger
from search.study import Summary, summarize
from tmsearch.api.records import Rung, Trial, rung_of, trial_of
from tmsearch.api.status import Status
from tmsearch.cli.view import intervals
from tmsearch.cli.view.progress import Display
from tmsearch.trial.facts import StudyFacts


@dataclass(frozen=True)
class Callbacks:
    """What is called in the caller's own thread while a study is at work.

    Attributes:
        on_rung: at each evaluation, whichever worker made it.
        on_trial: as a trial is pruned, has finished or failed.
        on_end: at the end, however it ends but by an error.
    """

    on_rung: Callable[[Rung], object] | None = None
    on_trial: Callable[[Trial], object] | None = None
    on_end: Callable[[Status], object] | None = None


class SilentDisplay:
    """Shows nothing."""

    def __init__(self, summary: Summary, workers: int, deadline: float, price: float | None) -> None:
        """As `StudyView.new_display` is called."""

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is held."""

    def say(self, line: str, style: str = "") -> None:
        """Nothing is shown."""

    def claimed(self, number: int, params: Mapping[str, Any], first_step: int, last_step: int) -> None:
        """Nothing is shown."""

    def progress(self, number: int, event: ProgressEvent) -> None:
        """Nothing is shown."""

    def fact(self, key: str, value: Any) -> None:
        """Nothing is shown."""

    def rung(self, number: int, step: int, value: float, metrics: Mapping[str, Any], state: str) -> None:
        """Nothing is shown."""

    def failed(self, number: int, failure: str, reason: str) -> None:
        """Nothing is shown."""

    def notice(self, text: str) -> None:
        """Nothing is shown."""

    def at_work(self, running: Mapping[int, str]) -> None:
        """Nothing is shown."""


class CallbackDisplay:
    """Passes a study's events on to a display, and calls back for what is new in the ledger, in its order.

    A callback that raises stops the work as a first Ctrl-C does, and no callback is called any more.

    Args:
        display: shows the events.
        ledger: the study's: it also has what workers of other processes do.
        callbacks: what to call.
        interrupts: stops the work.

    Attributes:
        error: what a callback raised.
    """

    def __init__(self, display: Display, ledger: Ledger, callbacks: Callbacks, interrupts: Interrupts) -> None:
        self._display = display
        self._ledger = ledger
        self._callbacks = callbacks
        self._interrupts = interrupts
        history = ledger.history()
        self._told_rungs = {trial.number: len(trial.rungs) for trial in history}
        self._told_ended = {trial.number for trial in history if trial.ended}
        self.error: BaseException | None = None

    def __enter__(self) -> Display:
        self._display.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._display.__exit__(*error)
        self._call_back()

    def say(self, line: str, style: str = "") -> None:
        self._display.say(line, style)

    def claimed(self, number: int, params: Mapping[str, Any], first_step: int, last_step: int) -> None:
        self._display.claimed(number, params, first_step, last_step)
        self._call_back()

    def progress(self, number: int, event: ProgressEvent) -> None:
        self._display.progress(number, event)

    def fact(self, key: str, value: Any) -> None:
        self._display.fact(key, value)

    def rung(self, number: int, step: int, value: float, metrics: Mapping[str, Any], state: str) -> None:
        self._display.rung(number, step, value, metrics, state)
        self._call_back()

    def failed(self, number: int, failure: str, reason: str) -> None:
        self._display.failed(number, failure, reason)
        self._call_back()

    def notice(self, text: str) -> None:
        self._display.notice(text)

    def at_work(self, running: Mapping[int, str]) -> None:
        self._display.at_work(running)

    def _call_back(self) -> None:
        """Tell what is new since the last time; a database that is away is asked the next time."""
        if self.error is not None:
            return
        try:
            summary = summarize(self._ledger)
        except StorageUnavailableError:
            return
        try:
            for trial in summary.history:
                self._tell_rungs(trial)
            for trial in summary.history:
                self._tell_end(trial, summary)
        except BaseException as error:  # raised again once all is saved
            self.error = error
            self._interrupts.stop = True

    def _tell_rungs(self, trial: Configuration) -> None:
        told = self._told_rungs.get(trial.number, 0)
        for index in range(told, len(trial.rungs)):
            self._told_rungs[trial.number] = index + 1
            if self._callbacks.on_rung is not None:
                self._callbacks.on_rung(rung_of(trial, index))

    def _tell_end(self, trial: Configuration, summary: Summary) -> None:
        """A trial that was pruned may go on once a larger total is asked for, and end again."""
        if not trial.ended:
            self._told_ended.discard(trial.number)
        elif trial.number not in self._told_ended:
            self._told_ended.add(trial.number)
            if self._callbacks.on_trial is not None:
                interval = intervals.interval(StudyFacts.from_json(summary.facts), trial)
                self._callbacks.on_trial(trial_of(trial, interval))
