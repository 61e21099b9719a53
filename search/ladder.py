"""Rungs: when a configuration pauses, goes on, or ends; pure functions of the history."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from search.records import Configuration

Verdict = Literal["goes on", "pruned", "finished"]


@dataclass(frozen=True)
class Rule:
    """What a ladder needs of the space's budget. `rungs` rise and end at the full budget, in steps."""

    rungs: tuple[int, ...]
    strategy: str = "halving"
    eta: int = 2


@dataclass(frozen=True)
class Work:
    """The next segment: of configuration `number`, or of a new one where it is None."""

    number: int | None
    first_step: int
    last_step: int


# (my value, everybody's values at the same rung, mine among them; eta) -> may it go on?
Strategy = Callable[[float, Sequence[float], int], bool]


def halving(value: float, values: Sequence[float], eta: int) -> bool:
    """In the best 1/eta of what has reached this rung so far (at least one may go on).

    Asynchronous successive halving without waiting (Li et al., arXiv:1810.05934), in its stopping form.
    """
    places = max(1, len(values) // eta)
    return sum(1 for other in values if other < value) < places


def median(value: float, values: Sequence[float], eta: int) -> bool:
    """Not worse than the median of the others at this rung (Golovin et al. 2017, Vizier's median stopping rule)."""
    others = list(values)
    others.remove(value)
    return not others or value <= statistics.median(others)


def no_pruning(value: float, values: Sequence[float], eta: int) -> bool:
    """Everything is trained in full."""
    return True


STRATEGIES: dict[str, Strategy] = {"halving": halving, "median": median, "none": no_pruning}


def verdict(rule: Rule, others: Sequence[Configuration], step: int, value: float) -> Verdict:
    """What becomes of a configuration that just got `value` at rung `step`. `others` are the study's, without it."""
    if step >= rule.rungs[-1]:
        return "finished"
    values = [other.curve[step] for other in others if step in other.curve and math.isfinite(other.curve[step])]
    return "goes on" if STRATEGIES[rule.strategy](value, [*values, value], rule.eta) else "pruned"


def next_rung(rule: Rule, steps: int) -> int:
    """The first rung past `steps`."""
    return next(rung for rung in rule.rungs if rung > steps)


def choose(rule: Rule, free: Sequence[Configuration], count: int, trials: int) -> Work | None:
    """The next segment to run, or None where nothing is left to start.

    Begun configurations come before new ones, lower numbers first: a search that was killed finishes what it
    began. `free` are the ones that no live worker holds, `count` is how many the study has, `trials` its total.
    """
    for one in sorted(free, key=lambda one: (one.state == "queued", one.number)):
        if not one.ended:
            return Work(one.number, one.steps, next_rung(rule, one.steps))
    return Work(None, 0, rule.rungs[0]) if count < trials else None
