"""What a run prints: plain lines, and on a terminal the live lines below them."""

from __future__ import annotations

import dataclasses
import math
import sys
import time
from collections.abc import Mapping
from typing import Any, Protocol

from rich.console import Console
from rich.text import Text

from search.execution.lease import Listener
from search.execution.messages import ProgressEvent
from search.records import Configuration, Rung
from search.study import Summary
from tmsearch.cli.view import intervals, terminal
from tmsearch.cli.view.format import (
    dollars,
    judged_line,
    rungs,
    searched_knobs,
    short_value,
    time_left,
)
from tmsearch.cli.view.live import LiveDisplay, RunningTrial
from tmsearch.cli.view.screen import LiveScreen
from tmsearch.formatting import clock_time
from tmsearch.trial.facts import StudyFacts


class Display(Listener, Protocol):
    """Shows a study at work, within a `with` block."""

    def __enter__(self) -> Display: ...
    def __exit__(self, *_: object) -> None: ...
    def say(self, line: str, style: str = "") -> None:
        """Show a line, in a style of rich's."""


class ProgressPrinter:
    """Prints what the workers of a study do, as they report it.

    Args:
        summary: the study at the start.
        workers: how many there are, for the estimate of the time left.
        deadline: by time.monotonic(); the time left is at most the time until then.
        price: dollars an hour of each worker; None: no money is mentioned.
        console: for tests; else standard output.
    """

    def __init__(
        self,
        summary: Summary,
        workers: int = 1,
        deadline: float = math.inf,
        price: float | None = None,
        console: Console | None = None,
    ) -> None:
        self._summary = summary
        self._history = {trial.number: trial for trial in summary.history}
        self._max_steps: int = summary.record.space["budget"]["max_steps"]
        self._workers = workers
        self._deadline = deadline
        self._price = price
        # Only what was trained in full can be the best: values at earlier rungs cannot be compared with it.
        finished = [trial.value for trial in summary.history if trial.state == "finished" and trial.value is not None]
        self._best = min(finished, default=math.inf)
        self._current: int | None = None
        self._console = console or Console(highlight=False, force_interactive=terminal.can_redraw())
        self._lines_below = LiveDisplay(hourly=None if price is None else price * workers)
        self._live = LiveScreen(self._console, self._lines_below) if self._console.is_interactive else None

    def __enter__(self) -> ProgressPrinter:
        if self._live:
            self._update_study_lines()
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def say(self, line: str, style: str = "") -> None:
        """Print a line, above the live ones where there are any."""
        if self._live and self._live.is_on:
            self._live.say(Text(line, style=style))
            return
        self._console.print(Text(line, style=style), soft_wrap=True)
        sys.stdout.flush()

    def claimed(self, number: int, params: Mapping[str, Any], first_step: int, last_step: int) -> None:
        if number != self._current or len(self._lines_below.running) > 1:
            verb = f"resumes from step {first_step}" if first_step else "starts"
            trial = self._history.get(number)
            if trial is not None and trial.unfinished and trial.state != "queued":
                verb = f"resumes on its way to step {last_step}"  # it was interrupted between two rungs
            self.say(f"trial {number}: {verb}; {searched_knobs(self._summary.record.space, params)}")
        self._current = number
        self._change(number, state="running", params=params, target=last_step, progress={})
        wer = self._history[number].value
        running = RunningTrial(
            number, first_step, last_step, self._max_steps, first_step, wer=wer, measure=self._summary.record.measure
        )
        self._lines_below.running[number] = running
        self._update_study_lines()

    def progress(self, number: int, event: ProgressEvent) -> None:
        if number not in self._lines_below.running:  # it started before this display
            trial = self._history.get(number)
            last_step = trial.target if trial else event.step
            wer = trial.value if trial else None
            measure = self._summary.record.measure
            started = RunningTrial(number, 0, last_step, self._max_steps, wer=wer, measure=measure)
            self._lines_below.running[number] = started
        running = self._lines_below.running[number]
        running.step = event.step
        running.loss = event.loss
        running.step_seconds = event.seconds or 0.0
        running.updated_at = time.monotonic()
        self._change(number, progress=event.to_json())

    def at_work(self, running: Mapping[int, str]) -> None:
        for number in set(self._lines_below.running) - set(running):
            self._lines_below.running.pop(number)
        for number, device in running.items():
            if number in self._lines_below.running:
                self._lines_below.running[number].device = device

    def fact(self, key: str, value: Any) -> None:
        self._summary = dataclasses.replace(self._summary, facts={**self._summary.facts, key: value})
        measure = self._summary.record.measure
        for model, baseline in StudyFacts.from_json({key: value}).baselines.items():
            rate = baseline.rate(self._summary.record.objective)
            self.say(f"{short_value(model)} untrained (zero-shot): {measure} {rate:.3f}")

    def rung(self, number: int, step: int, value: float, metrics: Mapping[str, Any], state: str) -> None:
        self._lines_below.running.pop(number, None)
        seconds = (metrics.get("train_seconds") or 0.0) + (metrics.get("eval_seconds") or 0.0)
        loops = f"  {metrics['loops']} of {metrics['clips']} clips loop" if metrics.get("loops") else ""
        line = (
            f"trial {number}: step {step}  {self._summary.record.measure} {value:.3f}{loops}  {seconds:.1f} s  {state}"
        )
        if state == "finished" and value < self._best:
            self._best = value
            self.say(f"{line}, best so far", "bold")
        else:
            self.say(line)
        earlier = self._history[number].rungs if number in self._history else ()
        self._change(number, state=state, rungs=(*earlier, Rung(step, value, dict(metrics))), progress={})
        self._update_study_lines()

    def failed(self, number: int, failure: str, reason: str) -> None:
        self._lines_below.running.pop(number, None)
        self._change(number, state="failed", failure=failure, reason=reason)
        self.say(f"trial {number}: failed ({failure}): {reason}", "red")
        self._update_study_lines()

    def notice(self, text: str) -> None:
        self.say(text, "yellow")

    def _change(self, number: int, **values: Any) -> None:
        """Replace fields of a configuration, or add it."""
        trial = self._history.get(number) or Configuration(number, "sampled", None, None, "running")
        self._history[number] = dataclasses.replace(trial, **values)

    def _update_study_lines(self) -> None:
        """Compute the study's own lines and the time left anew."""
        if self._live is None:
            return
        history = tuple(self._history[number] for number in sorted(self._history))
        self._summary = dataclasses.replace(self._summary, history=history)
        self._lines_below.parts = study_parts(self._summary, self._price)
        estimate = time_left(self._summary, self._workers)
        now = time.monotonic()
        self._lines_below.left = None if estimate is None else estimate.until(self._deadline - now)
        self._lines_below.estimated_at = now


def study_parts(summary: Summary, price: float | None = None) -> list[str]:
    """Where a study stands, in parts that may share a line."""
    parts = [f"{summary.record.name}: {judged_line(summary)}", rungs(summary)]
    best = summary.best
    if best is not None and best.value is not None:
        interval = intervals.interval(StudyFacts.from_json(summary.facts), best)
        parts.append(
            f"best {summary.record.measure} {best.value:.3f}{intervals.bracketed(interval)} at step {best.steps}"
        )
    money = "" if price is None else f", {dollars(summary.spent, price)}"
    return [*parts, f"{clock_time(summary.spent)} spent{money}"]
