"""Halving by a plan: how much a study of so many configurations may spend, and on which of them; needs numpy.

Configurations begin in waves of about ten. When a wave has been judged at the first rung, the waiting trial with the
lowest expected value in full goes on to its next rung, again and again, until the plan of all waves so far is spent.
The default recipe, the first `start` entry, is trained in full before anything else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from search.records import Configuration
from search.schedulers.extrapolation import final_values
from search.schedulers.scheduler import SchedulerConfig, SchedulerState, is_waiting, value_at

# Small enough that the curves of one wave inform the draws of the next, large enough that a wave's best is worth its
# training. Of 5, 7, 10 and 20 the demo took 10, and tiny.en could not tell them apart with a recipe given first
# (studies/README.md, 2026-11-29).
_WAVE = 10
_CHANCE = 2.0  # standard deviations below its expected value that a trial may still end
_ROUNDING = 1e-9


def promote(state: SchedulerState) -> Configuration | None:
    """The waiting trial that goes on before any new one starts; None if there is none, or no money for it."""
    default = _default_recipe(state)
    if default is not None and is_waiting(default):
        return default
    if is_judging(state):
        return None
    room = allowance(state) - spent_trainings(state)
    if state.closing or (state.is_full and not state.is_busy and not _is_any_full(state)):
        room = math.inf  # a study ends with a training in full
    for trial in contenders(state):
        if _remainder(state.config, trial) <= room + _ROUNDING:
            return trial
    return _expected_winner(state, room)


def contenders(state: SchedulerState, chance: float = _CHANCE) -> list[Configuration]:
    """Waiting trials that may still end below the leader, lowest expected value in full first.

    Args:
        chance: So many standard deviations below what is expected of it may a trial end.
    """
    trained = [trial for trial in state.history if trial.rungs and trial.failure is None]
    if not trained:
        return []
    last = state.config.last_rung
    finals, variances = final_values(trained, last)  # [n], logarithms
    lowest = min((value_at(trial, last) for trial in trained), default=math.inf)
    limit = math.log(max(lowest, 1e-3)) if math.isfinite(lowest) else math.inf
    waiting: list[tuple[float, int, Configuration]] = []
    for trial, final, variance in zip(trained, finals.tolist(), variances.tolist(), strict=True):
        if is_waiting(trial) and trial.steps < last and final - chance * math.sqrt(variance) < limit:
            waiting.append((final, trial.number, trial))
    return [trial for *_, trial in sorted(waiting)]


def allowance(state: SchedulerState) -> float:
    """Trainings in full that may have been spent by now: the plan of all whole waves, and a beginning one's own."""
    begun = _in_begun_waves(state)
    owed = (len(state.history) - begun) * state.config.rungs[0] / state.config.last_rung
    return min(state.config.planned_trainings(begun) + owed, state.config.limit)


def wave_ends(total: int) -> list[int]:
    """How many trials have begun at the end of each wave; waves are of nearly equal size."""
    waves = max(1, round(total / _WAVE))
    return [math.ceil(total * wave / waves) for wave in range(1, waves + 1)]


@dataclass(frozen=True)
class WaveAhead:
    """A wave that has not begun as a whole.

    Attributes:
        begins: so many trials of it are still to begin.
        full: so many of those that wait are then trained in full.
        exceeds: whether the plan has no room for the last of these.
    """

    begins: int
    full: int
    exceeds: bool = False


def waves_ahead(
    config: SchedulerConfig, begun: int, total: int, spent: float, is_judging: bool = False
) -> list[WaveAhead]:
    """What the plan makes of the waves to come, as far as that can be known before they are judged.

    Where it has no room for any of the last wave, the best of that is expected to win and trained all the same: 26 of
    32 replayed studies ended so (studies/README.md, 2026-11-30).

    Args:
        config: of the study.
        begun: trials that have begun.
        total: those that are to begin.
        spent: trainings in full so far.
        is_judging: whether the last wave has begun and is not judged: then it counts among those to come.
    """
    first = config.rungs[0] / config.last_rung
    remainder = 1.0 - first
    waves: list[WaveAhead] = []
    for end in [end for end in wave_ends(total) if end > begun or (is_judging and end == total)]:
        spent += (end - begun) * first
        room = min(config.planned_trainings(end), config.limit) - spent + _ROUNDING
        full = max(0, math.floor(room / remainder)) if remainder else 0
        exceeds = end == total and not full and remainder > 0.0 and _may_end_with(config, remainder, room, spent)
        full += exceeds
        waves.append(WaveAhead(end - begun, full, exceeds))
        spent += full * remainder
        begun = end
    return waves


def is_judging(state: SchedulerState) -> bool:
    """Whether a trial runs that has no value yet, apart from those of a wave that is only beginning."""
    begun = state.history[: _in_begun_waves(state)]
    return any(trial.state == "running" and not trial.rungs for trial in begun)


def is_judging_last(state: SchedulerState) -> bool:
    """Whether all trials have begun, and half or more of the last wave have no value yet."""
    if not state.is_full:
        return False
    begun = len(state.history)
    before = max([0, *(end for end in wave_ends(begun) if end < begun)])
    unjudged = sum(not trial.rungs and not trial.ended for trial in state.history[before:])
    return 2 * unjudged >= begun - before


def exceeds_plan(state: SchedulerState, trial: Configuration) -> bool:
    """Whether the plan has too little left for the trial: it is the default recipe, or the expected winner."""
    return _remainder(state.config, trial) > allowance(state) - spent_trainings(state) + _ROUNDING


def expected_trainings(config: SchedulerConfig, count: int) -> float:
    """Trainings in full that a study of `count` is expected to spend: its plan, and what it ends with past that."""
    planned = config.planned_trainings(count)
    waves = waves_ahead(config, 0, count, 0.0)
    if not waves or not waves[-1].exceeds:
        return planned
    first = config.rungs[0] / config.last_rung
    return max(planned, count * first + sum(wave.full for wave in waves) * (1.0 - first))


def spent_trainings(state: SchedulerState) -> float:
    """What was trained so far, in trainings in full, by steps: seconds differ from run to run.

    Trials that are being trained past the first rung count as if they went on to the end: of several workers none
    begins what the plan cannot bring there.
    """
    steps = 0
    for trial in state.history:
        is_promoted = bool(trial.rungs) or trial.origin == "start"
        reached = state.config.last_rung if is_promoted else trial.target
        steps += reached if trial.state == "running" else trial.steps
    return steps / state.config.last_rung


@dataclass(frozen=True)
class MoreWouldBuy:
    """What a spent plan leaves: trials that could still win, and the trainings in full to bring them to the end."""

    trials: tuple[int, ...]
    trainings: float


def more_would_buy(state: SchedulerState) -> MoreWouldBuy:
    """The trials that could still win, and what it would take to train them in full."""
    left = contenders(state)
    last = state.config.last_rung
    return MoreWouldBuy(tuple(trial.number for trial in left), sum(last - trial.steps for trial in left) / last)


def _default_recipe(state: SchedulerState) -> Configuration | None:
    """The first `start` entry, unless its training failed."""
    for trial in state.history:
        if trial.origin == "start":
            return trial if trial.failure is None else None
    return None


def _expected_winner(state: SchedulerState, room: float) -> Configuration | None:
    """The trial that the study ends with: what is left of the plan is too little for it, and it is expected to win.

    A plan is exceeded by less than one training, and a deadline never: a study that has judged its last wave does not
    end while the best that it expects was never trained.
    """
    if not state.is_full or state.is_busy:
        return None
    winner = next(iter(contenders(state, chance=0.0)), None)
    if winner is None:
        return None
    needed = _remainder(state.config, winner)
    return winner if _may_end_with(state.config, needed, room, spent_trainings(state)) else None


def _may_end_with(config: SchedulerConfig, needed: float, room: float, spent: float) -> bool:
    """Whether a study that has spent so many trainings may end with one that takes `needed`, more than its plan has."""
    return needed < room + 1.0 and spent + needed <= config.limit


def _in_begun_waves(state: SchedulerState) -> int:
    """How many trials belong to waves that have begun as a whole."""
    total = max(state.config.affordable(state.total), len(state.history))
    return max(end for end in [0, *wave_ends(total)] if end <= len(state.history))


def _is_any_full(state: SchedulerState) -> bool:
    return any(math.isfinite(value_at(trial, state.config.last_rung)) for trial in state.history)


def _remainder(config: SchedulerConfig, trial: Configuration) -> float:
    """What it takes to train the trial to the end, in trainings in full: one that stops short of it wins nothing."""
    return 1.0 - trial.steps / config.last_rung
