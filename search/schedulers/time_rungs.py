"""Rungs in seconds: which of a configuration's evaluations stands for each rung, and the step that a rung comes to."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from search.errors import RunError
from search.records import Configuration, Rung

# An evaluation stands for a rung from this share of its seconds on. Speed is known from what was trained before, so
# that a segment ends near its rung and seldom on it; one that ended earlier than this goes on to the rung at once.
NEAR = 0.8
# Of the full training, at most: where a configuration is first evaluated, for its speed to be known.
PROBE = 0.02


@dataclass(frozen=True)
class Pace:
    """Rungs that stand at `seconds` of a configuration's own training (rising; evaluation not counted), and its end.

    To a ladder these are the rungs 1, 2, ..., and one more for `max_steps`. Every configuration is first evaluated at
    `probe` steps; from then on its last segment says how many steps its next rung is away. Where only some steps
    have an evaluation, as in a recorded table, they are `stops`.
    """

    seconds: tuple[float, ...]
    max_steps: int
    probe: int
    stops: tuple[int, ...] = ()

    @property
    def rungs(self) -> tuple[int, ...]:
        return tuple(range(1, len(self.seconds) + 2))

    def seen(self, one: Configuration) -> Configuration:
        """The configuration as the ladder has it: its curve over rungs, a value at each the first that stands for it.

        So one that is fast enough to have ended before a rung has its last value there. One whose last evaluation
        stands for no rung of its own (the probe, or too short a segment) is unfinished: it was on its way to one.
        """
        rungs: list[Rung] = []
        spent, on_the_way = 0.0, one.target > one.steps
        for rung in one.rungs:
            spent += _seconds(rung)
            place = self._place(rung.step, spent)
            on_the_way = place <= len(rungs) or one.target > one.steps
            rungs += [Rung(at, rung.value, rung.metrics) for at in range(len(rungs) + 1, place + 1)]
        return replace(one, rungs=tuple(rungs), target=len(rungs) + on_the_way)

    def _place(self, step: int, spent: float) -> int:
        """The highest rung that an evaluation stands for; 0: none."""
        if step >= self.max_steps:
            return len(self.seconds) + 1
        return sum(spent >= NEAR * seconds for seconds in self.seconds)

    def step(self, one: Configuration | None, rung: int) -> int:
        """The step at which the segment ends that brings `one` (None: a new configuration) to `rung`.

        What was begun ends where it was begun to end: the ledger keeps that step, so a resumed search repeats it.
        """
        if one is not None and one.target > one.steps:
            return one.target
        if one is None or not one.rungs:
            return self.probe
        if rung > len(self.seconds):
            return self.max_steps
        last, before = one.rungs[-1], one.rungs[-2].step if len(one.rungs) > 1 else 0
        speed = _seconds(last) / (last.step - before)
        left = self.seconds[rung - 1] - math.fsum(_seconds(each) for each in one.rungs)
        wanted = min(one.steps + max(1, round(left / speed)), self.max_steps)
        later = [stop for stop in self.stops if stop > one.steps]
        return min(later, key=lambda stop: abs(math.log(stop / wanted))) if later else wanted


def _seconds(rung: Rung) -> float:
    seconds = rung.metrics.get("train_seconds")
    if not isinstance(seconds, int | float) or not 0.0 < seconds < math.inf:
        raise RunError(f"step {rung.step} came without its train_seconds, which rungs in seconds need")
    return float(seconds)
