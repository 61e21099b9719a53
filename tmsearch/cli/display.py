"""What a run prints: one live line on a terminal, plain lines in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from search.imported import own
from search.study import Summary
from tmsearch.cli import sure
from tmsearch.cli.words import clock_time, cost, searched, short
from tmsearch.config import TrainConfig


class Display:
    """A worker's listener. Times are the wall's, in seconds."""

    def __init__(self, summary: Summary) -> None:
        self._space = summary.record.space
        self._trials = summary.record.trials
        # Only what was trained in full leads: values at earlier rungs do not compare with it.
        self._best = {
            one.number: one.value
            for one in summary.history
            if one.state == "finished" and one.value is not None
        }
        self._spent = summary.spent
        self._current: int | None = None
        self._wer = {one.number: one.value for one in summary.history if one.value is not None}
        self._console = Console(highlight=False, soft_wrap=True)
        self._bar: Progress | None = None
        self._lines: dict[int, TaskID] = {}  # one a trial that is running
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"), BarColumn(bar_width=20), console=self._console, transient=True
            )

    def __enter__(self) -> Display:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def say(self, line: str, style: str = "") -> None:
        """One line above the live one."""
        self._console.print(Text(line, style=style))
        sys.stdout.flush()

    def claimed(self, number: int, params: Mapping[str, Any], first_step: int, last_step: int) -> None:
        if number != self._current or len(self._lines) > 1:
            verb = f"goes on from step {first_step}" if first_step else "begins"
            self.say(f"trial {number}: {verb}; {searched(self._space, params)}")
        self._current = number
        if self._bar:
            if number not in self._lines:
                self._lines[number] = self._bar.add_task("", total=self._space["budget"]["max_steps"])
            doing = f"trial {number} prepares step {last_step}"
            self._bar.update(self._lines[number], completed=first_step, description=doing)

    def progress(self, number: int, event: Mapping[str, Any]) -> None:
        if not self._bar or number not in self._lines:
            return
        parts = [f"trial {number} of {self._trials}", f"step {event['step']}", f"loss {event['loss']:.3f}"]
        if number in self._wer:
            parts.append(f"WER {self._wer[number]:.3f}")
        if self._best:
            parts.append(f"best WER {min(self._best.values()):.3f}")
        parts.append(self._left(event))
        self._bar.update(self._lines[number], completed=event["step"], description="  ".join(parts))

    def _left(self, event: Mapping[str, Any]) -> str:
        """Of the study, from what its configurations cost so far; of the trial until one has ended."""
        if len(self._wer) > 1:
            left = self._spent / len(self._wer) * max(1, self._trials - len(self._wer))
            return f"about {clock_time(left)} left"
        steps = self._space["budget"]["max_steps"] - event["step"]
        return f"at most {clock_time(steps * event['seconds'])} left of the trial"

    def fact(self, key: str, value: Any) -> None:
        if key.startswith("baseline:"):
            self.say(f"{short(key.removeprefix('baseline:'))} untrained (zero-shot): WER {value['wer']:.3f}")

    def rung(self, number: int, step: int, value: float, metrics: Mapping[str, Any], state: str) -> None:
        self._wer[number] = value
        self._off(number)
        seconds = (metrics.get("train_seconds") or 0.0) + (metrics.get("eval_seconds") or 0.0)
        ending = {"paused": "  waits", "pruned": "  pruned", "finished": "  finished"}[state]
        leads = state == "finished" and value < min(self._best.values(), default=float("inf"))
        if leads:
            self._best[number] = value
        loops = f"  {metrics['loops']} of {metrics['clips']} clips loop" if metrics.get("loops") else ""
        self.say(
            f"trial {number}: step {step}  WER {value:.3f}{loops}  {seconds:.1f} s{ending}"
            f"{', best so far' if leads else ''}",
            "bold" if leads else "",
        )
        self._spent += seconds

    def _off(self, number: int) -> None:
        if self._bar and number in self._lines:
            self._bar.remove_task(self._lines.pop(number))

    def failed(self, number: int, failure: str, reason: str) -> None:
        self._off(number)
        self.say(f"trial {number}: failed ({failure}): {reason}", "red")

    def notice(self, text: str) -> None:
        self.say(text, "yellow")


def answer(summary: Summary) -> list[str]:
    """What a finished run ends with: the best configuration and the next commands."""
    name, found = summary.record.name, summary.best
    if found is None or found.params is None or found.value is None:
        return [f"no configuration has a result yet; `tmsearch status {name}` shows them"]
    model = found.params.get("model", TrainConfig.model)
    base = summary.facts.get(f"baseline:{model}", {}).get("wer")
    against = ""
    if base is not None:
        against = f" (untrained: {base:.3f}{sure.bracketed(sure.baseline_interval(summary.facts, model))})"
    states = ", ".join(f"{number} {state}" for state, number in summary.counts.items())
    interval = sure.bracketed(sure.interval(summary.facts, found))
    count = len(own(summary.history))
    return [
        f"{count} configuration{'s' if count > 1 else ''}: {states}; {cost(summary)}",
        f"best: trial {found.number}, WER {found.value:.3f}{interval} at step {found.steps}{against}; "
        f"{searched(summary.record.space, found.params)}",
        f"next: tmsearch status {name}; tmsearch confirm {name}; tmsearch export {name} -o best.yaml; "
        "tmsearch train best.yaml",
    ]
