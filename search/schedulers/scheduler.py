"""The scheduler decides which trial trains next, pauses, is pruned or has finished: pure functions of the history.

Values are compared at rungs (steps); lower is better.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from search.imported import without_imported
from search.records import Claim, Configuration, Rung, best_configuration

Verdict = Literal["paused", "pruned", "finished"]
Spend = float | Literal["auto"]

AUTO: Literal["auto"] = "auto"
# Trainings in full that a study of n configurations plans by itself: this times n to that power, so that few of many
# are trained deeply and most of few. 7.1 for 20, 12.4 for 40, 45 for 200 (replayed: studies/README.md, 2026-11-29).
_AUTO_FACTOR = 0.65
_AUTO_POWER = 0.8
# Where the first rung lies behind an eighth of a training, by which these were chosen, judging takes more: half of that
# is spent on top. Without it a study of 20 with a first rung at a quarter spent 5 of its 7.1 trainings on judging, and
# ended higher on all of five tables (studies/README.md, 2026-11-30).
_AUTO_FIRST = 1.0 / 8.0
_AUTO_LATE = 0.5


@dataclass(frozen=True)
class SchedulerConfig:
    """The scheduler's part of a space's budget.

    Attributes:
        rungs: rising, the last one is the full budget, in optimizer steps.
        strategy: a name of asha.POLICIES.
        eta: one in so many goes on past a rung.
        max_full: so many beside the leader that cannot be told from it are trained in full.
        spend: what halving may spend, as a share of training every configuration in full. None: as `eta` and
            `max_full` have it.
        limit: trainings in full that the time left allows, what was spent included.
    """

    rungs: tuple[int, ...]
    strategy: str = "halving"
    eta: int = 4
    max_full: int = 3
    spend: Spend | None = None
    limit: float = math.inf

    @property
    def last_rung(self) -> int:
        """The full budget, in optimizer steps."""
        return self.rungs[-1]

    @property
    def is_planned(self) -> bool:
        """Whether what a study spends is planned."""
        return self.strategy == "halving" and self.spend is not None

    def planned_trainings(self, count: int) -> float:
        """Trainings in full that a study of `count` configurations plans to spend.

        Every configuration gets to the first rung and two to the last, whatever the share: the default recipe and
        another.
        """
        assert self.spend is not None
        if count == 0:
            return 0.0
        first = self.rungs[0] / self.last_rung
        if self.spend == AUTO:
            planned = _AUTO_FACTOR * math.pow(count, _AUTO_POWER) + _AUTO_LATE * count * max(0.0, first - _AUTO_FIRST)
        else:
            planned = float(self.spend) * count
        least = count * first + 2.0 * (1.0 - first)
        return min(float(count), max(least, planned))

    def affordable(self, total: int) -> int:
        """How many of `total` configurations the time allows to begin, so that their plan can be kept to the end."""
        if not self.is_planned or self.limit == math.inf:
            return total
        count = total
        while count > 1 and self.planned_trainings(count) > self.limit:
            count -= 1
        return count


@dataclass(frozen=True)
class NextSegment:
    """The next stretch of training: of trial `number`, or of a new trial where it is None."""

    number: int | None
    first_step: int
    last_step: int


@dataclass(frozen=True)
class SchedulerState:
    """What a decision may depend on. `total` is the number of trials that the study is to have.

    `closing`: time is running out, so no new trial starts and those that started are brought to their end.
    """

    config: SchedulerConfig
    history: Sequence[Configuration]
    total: int
    closing: bool = False

    @property
    def is_full(self) -> bool:
        """Whether no new trial may start."""
        return self.closing or len(self.history) >= self.config.affordable(self.total)

    @property
    def is_whole(self) -> bool:
        """Whether nothing but the plan holds trials back, so that those that still wait when no work is left lost."""
        return not self.closing and self.config.affordable(self.total) >= self.total

    @property
    def is_busy(self) -> bool:
        """Whether any worker is training."""
        return any(trial.state == "running" for trial in self.history)

    def ranked_at(self, step: int) -> list[Configuration]:
        """Trials with a value at `step`, best first; those that failed on the way there come last."""
        reached = [trial for trial in self.history if step in trial.curve or (trial.failure and trial.target >= step)]
        return sorted(reached, key=lambda trial: (value_at(trial, step), trial.number))


@dataclass(frozen=True)
class Policy:
    """One strategy of choosing between trials; the only interface that all of them share.

    Attributes:
        verdict: for a trial that just got a value below the last rung.
        promote: the waiting trial that goes on to its next rung before any new one starts; None if there is none.
        synchronous: rungs are completed in step. A draw then sees no results, since it must not depend on which
            worker was done first.
        share: how many of the trials judged at a rung go on, given (state, rung, how many were judged). None where
            that depends on their values alone.
    """

    verdict: Callable[[SchedulerState, Configuration], Verdict]
    promote: Callable[[SchedulerState], Configuration | None]
    synchronous: bool = False
    share: Callable[[SchedulerState, int, int], int] | None = None


def value_at(trial: Configuration, step: int) -> float:
    """The trial's value at `step`; infinite if it has none there, it is not finite, or the trial failed."""
    if trial.failure is not None:
        return math.inf
    value = trial.curve.get(step, math.inf)
    return value if math.isfinite(value) else math.inf


def is_waiting(trial: Configuration) -> bool:
    """Whether it is paused at a rung, or was pruned there and can still be promoted."""
    stopped = trial.state in ("paused", "pruned") and trial.failure is None
    return stopped and trial.steps > 0 and not trial.unfinished


def next_rung(config: SchedulerConfig, steps: int) -> int:
    """The first rung past `steps`."""
    return next(rung for rung in config.rungs if rung > steps)


def _interrupted(state: SchedulerState) -> Configuration | None:
    """A trial whose segment was interrupted, else one that a person queued; lower numbers first."""
    interrupted = [trial for trial in state.history if trial.state == "paused" and trial.unfinished]
    queued = [trial for trial in state.history if trial.state == "queued"]
    return min(interrupted or queued, key=lambda trial: trial.number, default=None)


def choose(policy: Policy, state: SchedulerState) -> NextSegment | None:
    """The next segment to train, or None if there is none for now.

    Interrupted segments come first, so that a search that was killed completes what it started; then promotions;
    then a new trial, while the total is not reached.
    """
    trial = _interrupted(state) or policy.promote(state)
    if trial is not None:
        return NextSegment(trial.number, trial.steps, next_rung(state.config, trial.steps))
    if state.is_full:
        return None
    return NextSegment(None, 0, state.config.rungs[0])


def history_for_draw(policy: Policy, history: Sequence[Configuration], number: int | None) -> tuple[Configuration, ...]:
    """The trials that the draw of trial `number` (None: a new one) may learn from."""
    if policy.synchronous:
        return ()
    return tuple(trial for trial in history if trial.number != number)


def decide(
    policy: Policy,
    config: SchedulerConfig,
    history: Sequence[Configuration],
    total: int,
    claim: Claim,
    value: float,
    metrics: Mapping[str, Any],
) -> tuple[Verdict, str | None]:
    """The claimed trial's next state after this result, and the reason if it ends."""
    if claim.last_step >= config.last_rung:
        return "finished", f"trained in full, {claim.last_step} steps"
    before = next(trial for trial in history if trial.number == claim.number)
    rungs = (*before.rungs, Rung(claim.last_step, value, metrics))
    after = replace(before, rungs=rungs, state="paused", drawn=claim.drawn, params=claim.params)
    updated = without_imported(history)
    updated[updated.index(before)] = after
    verdict = policy.verdict(SchedulerState(config, updated, total), after)
    if verdict == "pruned":
        return verdict, pruning_reason(config, after)
    return verdict, None


def pruning_reason(config: SchedulerConfig, trial: Configuration) -> str:
    """Why a waiting trial is not trained further."""
    return f"pruned at step {trial.steps} by {config.strategy}"


def seconds_to_finish(config: SchedulerConfig, history: Sequence[Configuration]) -> float:
    """Seconds to bring the best trial from its newest checkpoint to the last rung, by its own cost so far.

    0 if it is there or none exists.
    """
    leader = best_configuration(tuple(history))
    if leader is None or leader.steps >= config.last_rung:
        return 0.0
    return leader.seconds_a_step * (config.last_rung - leader.saved_step)
