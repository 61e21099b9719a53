"""What a run prints: plain lines, and on a terminal the live lines below them."""

from __future__ import annotations

import dataclasses
import math
import sys
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from search.execution.messages import ProgressEvent
from search.imported import without_imported
from search.records import Configuration, Rung
from search.study import Summary
from tmsearch.cli.view import intervals, terminal
from tmsearch.cli.view.format import cost_line, model_of, rungs, searched_knobs, seconds_left, short_value
from tmsearch.cli.view.live import LiveDisplay, ReflowCleanup, RunningTrial
from tmsearch.formatting import clock_time
from tmsearch.trial.facts import StudyFacts


class ProgressPrinter:
    """Tells what the workers of a study do, from what it is told; the study as it was begins with `summary`.

    `workers`: how many there are. `deadline` is time.monotonic()'s: no more time than until then is left.
    """

    def __init__(
        self, summary: Summary, workers: int = 1, deadline: float = math.inf, console: Console | None = None
    ) -> None:
        self._summary = summary
        self._history = {one.number: one for one in summary.history}
        self._workers = workers
        self._deadline = deadline
        # Only what was trained in full leads: values at earlier rungs do not compare with it.
        ended = [one.value for one in summary.history if one.state == "finished" and one.value is not None]
        self._best = min(ended, default=math.inf)
        self._current: int | None = None
        self._console = console or Console(highlight=False, force_interactive=terminal.can_redraw())
        self._lines_below = LiveDisplay()
        self._live: Live | None = None
        if self._console.is_interactive:
            self._live = Live(self._lines_below, console=self._console, transient=True, vertical_overflow="crop")

    def __enter__(self) -> ProgressPrinter:
        if self._live:
            self._recount()
            self._live.start()
            self._console.push_render_hook(ReflowCleanup(self._lines_below, self._console))
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._console.pop_render_hook()
            self._live.stop()

    def say(self, line: str, style: str = "") -> None:
        """One line above the live ones."""
        self._console.print(Text(line, style=style), soft_wrap=True)
        sys.stdout.flush()

    def claimed(self, number: int, params: Mapping[str, Any], first_step: int, last_step: int) -> None:
        if number != self._current or len(self._lines_below.running) > 1:
            verb = f"goes on from step {first_step}" if first_step else "begins"
            self.say(f"trial {number}: {verb}; {searched_knobs(self._summary.record.space, params)}")
        self._current = number
        self._known(number, state="running", params=params, target=last_step, progress={})
        full = self._summary.record.space["budget"]["max_steps"]
        self._lines_below.running[number] = RunningTrial(
            number, first_step, last_step, full, first_step, wer=self._history[number].value
        )
        self._recount()

    def progress(self, number: int, event: ProgressEvent) -> None:
        if number not in self._lines_below.running:  # begun before we came
            known = self._history.get(number)
            target = known.target if known else event.step
            full = self._summary.record.space["budget"]["max_steps"]
            wer = known.value if known else None
            self._lines_below.running[number] = RunningTrial(number, 0, target, full, wer=wer)
        one = self._lines_below.running[number]
        one.step = event.step
        one.loss = event.loss
        one.step_seconds = event.seconds or 0.0
        one.updated_at = time.monotonic()
        self._known(number, progress=event.to_json())

    def at_work(self, running: Mapping[int, str]) -> None:
        for number in set(self._lines_below.running) - set(running):
            self._off(number)
        for number, place in running.items():
            if number in self._lines_below.running:
                self._lines_below.running[number].device = place

    def fact(self, key: str, value: Any) -> None:
        self._summary = dataclasses.replace(self._summary, facts={**self._summary.facts, key: value})
        for model, baseline in StudyFacts.from_json({key: value}).baselines.items():
            self.say(f"{short_value(model)} untrained (zero-shot): WER {baseline.wer:.3f}")

    def rung(self, number: int, step: int, value: float, metrics: Mapping[str, Any], state: str) -> None:
        self._off(number)
        seconds = (metrics.get("train_seconds") or 0.0) + (metrics.get("eval_seconds") or 0.0)
        ending = {"paused": "  waits", "pruned": "  pruned", "finished": "  finished"}[state]
        leads = state == "finished" and value < self._best
        if leads:
            self._best = value
        loops = f"  {metrics['loops']} of {metrics['clips']} clips loop" if metrics.get("loops") else ""
        self.say(
            f"trial {number}: step {step}  WER {value:.3f}{loops}  {seconds:.1f} s{ending}"
            f"{', best so far' if leads else ''}",
            "bold" if leads else "",
        )
        before = self._history[number].rungs if number in self._history else ()
        self._known(number, state=state, rungs=(*before, Rung(step, value, dict(metrics))), progress={})
        self._recount()

    def _known(self, number: int, **values: Any) -> None:
        """Change what is known of a configuration."""
        one = self._history.get(number) or Configuration(number, "sampled", None, None, "running")
        self._history[number] = dataclasses.replace(one, **values)

    def _off(self, number: int) -> None:
        self._lines_below.running.pop(number, None)

    def _recount(self) -> None:
        """The study's own lines, and the time that is left."""
        if self._live is None:
            return
        history = tuple(self._history[number] for number in sorted(self._history))
        self._summary = dataclasses.replace(self._summary, history=history)
        self._lines_below.parts = study_parts(self._summary)
        left, at = seconds_left(self._summary, self._workers), time.monotonic()
        self._lines_below.seconds_left = None if left is None else min(left, max(0.0, self._deadline - at))
        self._lines_below.estimated_at = at

    def failed(self, number: int, failure: str, reason: str) -> None:
        self._off(number)
        self._known(number, state="failed", failure=failure, reason=reason)
        self.say(f"trial {number}: failed ({failure}): {reason}", "red")
        self._recount()

    def notice(self, text: str) -> None:
        self.say(text, "yellow")


def study_parts(summary: Summary) -> list[str]:
    """Where a study stands, in parts that may stand on one line."""
    mine = without_imported(summary.history)
    judged = sum(bool(one.rungs) or one.failure is not None for one in mine)
    parts = [f"{summary.record.name}: {judged} of {summary.record.trials} configurations judged", rungs(summary)]
    found = summary.best
    if found is not None and found.value is not None:
        facts = StudyFacts.from_json(summary.facts)
        interval = intervals.bracketed(intervals.interval(facts, found))
        parts.append(f"best WER {found.value:.3f}{interval} at step {found.steps}")
    return [*parts, f"{clock_time(summary.spent)} spent"]


def closing_lines(summary: Summary) -> list[str]:
    """What a finished run ends with: the best configuration and the next commands."""
    name, found = summary.record.name, summary.best
    if found is None or found.params is None or found.value is None:
        return [f"no configuration has a result yet; `tmsearch status {name}` shows them"]
    model = model_of(found)
    facts = StudyFacts.from_json(summary.facts)
    baseline = facts.baselines.get(model)
    against = ""
    if baseline is not None:
        interval = intervals.bracketed(intervals.baseline_interval(facts, model))
        against = f" (untrained: {baseline.wer:.3f}{interval})"
    states = ", ".join(f"{number} {state}" for state, number in summary.counts.items())
    interval = intervals.bracketed(intervals.interval(facts, found))
    count = len(without_imported(summary.history))
    return [
        f"{count} configuration{'s' if count > 1 else ''}: {states}",
        cost_line(summary),
        f"best: trial {found.number}, WER {found.value:.3f}{interval} at step {found.steps}{against}",
        f"  {searched_knobs(summary.record.space, found.params)}",
        "next:",
        *_commands(
            (f"report {name}", "a page to look at and listen to"),
            (f"confirm {name}", "is the winner real?"),
            (f"export {name} -o best.yaml", "its recipe"),
            ("train best.yaml", "the final model"),
            ("dashboard", "in optuna-dashboard"),
        ),
    ]


def _commands(*said: tuple[str, str]) -> list[str]:
    """A command a line and what it is for, where there is room for that."""
    widest = max(len(command) for command, _ in said)
    lines = [f"  tmsearch {command:<{widest}}  # {what}" for command, what in said]
    fits = max(map(len, lines)) <= terminal.COLUMNS
    return lines if fits else [f"  tmsearch {command}" for command, _ in said]
