"""Rungs: when a configuration pauses, goes on, or ends; pure functions of the history."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from search.imported import without_imported
from search.records import Claim, Configuration, Rung, best_configuration

Verdict = Literal["paused", "pruned", "finished"]


@dataclass(frozen=True)
class SchedulerConfig:
    """What a ladder needs of the space's budget. `rungs` rise and end at the full budget, in optimizer steps."""

    rungs: tuple[int, ...]
    strategy: str = "halving"
    eta: int = 4
    max_full: int = 3

    @property
    def last_rung(self) -> int:
        """The full budget."""
        return self.rungs[-1]


@dataclass(frozen=True)
class NextSegment:
    """The next segment: of configuration `number`, or of a new one where it is None."""

    number: int | None
    first_step: int
    last_step: int


@dataclass(frozen=True)
class SchedulerState:
    """What a decision may look at. `total`: how many configurations the study is to have.

    `closing`: time is running out, so that nothing new is begun and what was begun is brought to its end.
    """

    config: SchedulerConfig
    history: Sequence[Configuration]
    total: int
    closing: bool = False

    @property
    def full(self) -> bool:
        """Whether no new configuration is to be begun."""
        return self.closing or len(self.history) >= self.total

    @property
    def is_busy(self) -> bool:
        """Whether any worker is at something."""
        return any(one.state == "running" for one in self.history)

    def at(self, step: int) -> list[Configuration]:
        """Those that have a value at `step`, best first; failed ones, which have none to show for it, last."""
        reached = [one for one in self.history if step in one.curve or (one.failure and one.target >= step)]
        return sorted(reached, key=lambda one: (value_at(one, step), one.number))


@dataclass(frozen=True)
class Policy:
    """How configurations are chosen between: the one seam for all ways of doing it.

    `verdict`: of a configuration that just got a value below the last rung. `promote`: which of those that
    rest goes on to its next rung, before anything new is begun; None: none of them. `share`: how many of so many
    that were judged at a rung go on past it; None: their values say it, whatever their number.
    """

    verdict: Callable[[SchedulerState, Configuration], Verdict]
    promote: Callable[[SchedulerState], Configuration | None]
    # In step: what is drawn must not depend on who happened to be done first, so a draw sees no results.
    synchronous: bool = False
    share: Callable[[SchedulerState, int, int], int] | None = None


def value_at(one: Configuration, step: int) -> float:
    """The value at `step`; infinite where there is none, or the configuration failed."""
    value = one.curve.get(step, math.inf) if one.failure is None else math.inf
    return value if math.isfinite(value) else math.inf


def next_rung(config: SchedulerConfig, steps: int) -> int:
    """The first rung past `steps`."""
    return next(rung for rung in config.rungs if rung > steps)


def begun(study: SchedulerState) -> Configuration | None:
    """What somebody began and left, or a person queued: lower numbers first, begun before queued."""
    left = [one for one in study.history if one.state == "queued" or (one.state == "paused" and one.unfinished)]
    return min(left, key=lambda one: (one.state == "queued", one.number), default=None)


def choose(strategy: Policy, study: SchedulerState) -> NextSegment | None:
    """The next segment to run, or None where there is none for now.

    What was begun comes first, so that a search that was killed finishes what it began; then what is promoted;
    then something new, while the total is not reached.
    """
    chosen = begun(study) or strategy.promote(study)
    if chosen is not None:
        return NextSegment(chosen.number, chosen.steps, next_rung(study.config, chosen.steps))
    return None if study.full else NextSegment(None, 0, study.config.rungs[0])


def history_for_draw(
    strategy: Policy, history: Sequence[Configuration], number: int | None
) -> tuple[Configuration, ...]:
    """What the draw of configuration `number` (None: a new one) may look at."""
    return () if strategy.synchronous else tuple(one for one in history if one.number != number)


def decide(
    strategy: Policy,
    config: SchedulerConfig,
    history: Sequence[Configuration],
    total: int,
    claim: Claim,
    value: float,
    metrics: Mapping[str, Any],
) -> tuple[Verdict, str | None]:
    """What becomes of the claimed configuration with this result, and why where it ends."""
    if claim.last_step >= config.rungs[-1]:
        return "finished", f"trained in full, {claim.last_step} steps"
    before = next(one for one in history if one.number == claim.number)
    rungs = (*before.rungs, Rung(claim.last_step, value, metrics))
    mine = replace(before, rungs=rungs, state="paused", drawn=claim.drawn, params=claim.params)
    known = SchedulerState(
        config, [mine if one.number == claim.number else one for one in without_imported(history)], total
    )
    decided = strategy.verdict(known, mine)
    return decided, pruning_reason(config, mine) if decided == "pruned" else None


def pruning_reason(config: SchedulerConfig, one: Configuration) -> str:
    """Why a configuration that rests is not trained further."""
    return f"pruned at step {one.steps} by {config.strategy}"


def leader(config: SchedulerConfig, history: Sequence[Configuration]) -> Configuration | None:
    """The best at the highest rung that any configuration reached; see records.best."""
    return best_configuration(tuple(history))


def seconds_to_finish(config: SchedulerConfig, history: Sequence[Configuration]) -> float:
    """What it takes to bring the leader to the last rung, by its own costs so far; 0 where it is there."""
    one = leader(config, history)
    if one is None or one.steps >= config.rungs[-1]:
        return 0.0
    return one.seconds / one.steps * (config.rungs[-1] - one.steps)
