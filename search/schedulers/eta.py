"""What a study has come to, rung by rung, and what it still owes: seconds by its ladder and by what it cost so far."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from search.imported import without_imported
from search.records import Configuration
from search.schedulers.asha import ALL_POLICIES, contenders
from search.schedulers.scheduler import Policy, SchedulerConfig, SchedulerState, value_at

# Of rules that stop the worse ones: past each rung at most so many go on, in the long run.
MOST_GO_ON = 0.5
# Halving calls some back that were beside their rung's share: about `max_full` past the first rung and this part of
# them past each further one (recorded tables of the demo and tiny.en, 8 to 64 configurations, rungs that double).
CALLED_BACK = 0.5


@dataclass(frozen=True)
class RungSummary:
    """One rung: how many configurations have a value there, and the best one."""

    reached: int
    best: float | None


def rung_summaries(config: SchedulerConfig, history: Sequence[Configuration]) -> list[RungSummary]:
    """Every rung's, from the first to the end."""
    study = SchedulerState(config, without_imported(history), 0)
    found = []
    for rung in study.config.rungs:
        values = [one.curve[rung] for one in study.history if rung in one.curve]
        best = min((value for value in values if math.isfinite(value)), default=None)
        found.append(RungSummary(len(values), best))
    return found


@dataclass(frozen=True)
class _Prices:
    """Means over what was trained so far, in seconds."""

    step: float
    evaluation: float
    by_rung: tuple[float, ...]  # a segment that ends there, its evaluation included

    @classmethod
    def of(cls, config: SchedulerConfig, history: Sequence[Configuration]) -> _Prices | None:
        """None as long as nothing has a result."""
        trained = [one for one in history if one.steps]
        if not trained:
            return None
        step = math.fsum(one.total("train_seconds") / one.steps for one in trained) / len(trained)
        evaluation = math.fsum(one.total("eval_seconds") for one in trained) / sum(len(one.rungs) for one in trained)
        ends = [rung * step for rung in config.rungs]
        prices = tuple(end - start + evaluation for start, end in zip([0.0, *ends], ends, strict=False))
        return cls(step, evaluation, prices)


def seconds_left(
    config: SchedulerConfig, history: Sequence[Configuration], total: int, workers: int = 1
) -> float | None:
    """What `workers` still take on the clock until the study of `total` configurations has ended; an estimate.

    Counted are training and evaluation as they cost so far: the segments that are running, what the ladder will yet
    ask for, and those that may be trained in full beside the leader. None before the first result.
    """
    mine = without_imported(history)
    prices = _Prices.of(config, mine)
    if prices is None:
        return None
    if len(mine) >= total and all(one.ended for one in mine):
        return 0.0
    study = SchedulerState(config, mine, max(total, len(mine)))
    owed, alone = _owed(ALL_POLICIES[config.strategy], study)
    both = math.fsum(count * price for count, price in zip(owed, prices.by_rung, strict=True))
    both += math.fsum(_running(one, prices) for one in mine if one.state == "running")
    serial = math.fsum(count * price for count, price in zip(alone, prices.by_rung, strict=True))
    # Nobody climbs two rungs at once, however many workers there are.
    first = next((place for place, count in enumerate(owed) if count >= 1), len(owed))
    return serial + max(both / max(1, workers), math.fsum(prices.by_rung[first:]))


def _running(one: Configuration, prices: _Prices) -> float:
    """Of the segment that it is at."""
    step = one.total("train_seconds") / one.steps if one.steps else prices.step
    done = max(one.steps, int(one.progress.get("step") or 0))
    return max(0, one.target - done) * step + prices.evaluation


def _owed(strategy: Policy, study: SchedulerState) -> tuple[list[float], list[float]]:
    """Segments yet to be begun, by the rung that they end at; and those of the finish, where one waits for another."""
    rungs = study.config.rungs
    wanted = dict.fromkeys(rungs, 0.0)
    count = float(study.total)
    for rung in rungs:
        wanted[rung] = count
        count = max(1.0, _going_on(strategy, study, rung, count)) if rung != rungs[-1] else 0.0
    begun = {rung: sum(_asks_no_more(one, rung) for one in study.history) for rung in rungs}
    owed = [max(0.0, wanted[rung] - begun[rung]) for rung in rungs]
    if study.config.strategy != "halving":
        return owed, [0.0] * len(rungs)
    return owed, _finish(study, [max(0.0, begun[rung] - wanted[rung]) for rung in rungs])


def _finish(study: SchedulerState, beyond: Sequence[float]) -> list[float]:
    """Of halving: those that go on beside their rung's share, less those `beyond` it that did so already."""
    rungs = study.config.rungs
    if study.full and any(rungs[-1] in one.curve for one in study.history):
        left = list(contenders(study))
        return [float(sum(one.steps < rung for one in left)) for rung in rungs]
    likely = [0.0, *(study.config.max_full * CALLED_BACK**place for place in range(len(rungs) - 1))]
    return [max(0.0, min(count, study.total) - done) for count, done in zip(likely, beyond, strict=True)]


def _going_on(strategy: Policy, study: SchedulerState, rung: int, count: float) -> float:
    """How many of `count` that are judged at `rung` go on past it."""
    if strategy.share is not None:
        return strategy.share(study, rung, int(count))
    judged = [one for one in study.history if math.isfinite(value_at(one, rung))]
    stopped = sum(one.state == "pruned" and one.steps == rung for one in judged)
    # The first ones have nothing to be worse than, and all go on.
    return count * min(MOST_GO_ON, 1 - stopped / len(judged) if judged else 1.0)


def _asks_no_more(one: Configuration, rung: int) -> bool:
    """Whether a configuration asks for no more segment that ends at `rung`."""
    running = one.state == "running" and one.target >= rung
    return rung in one.curve or running or (one.failure is not None)
