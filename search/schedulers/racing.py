"""A race between few configurations, each trained several times: who can't win any more, and when it is over."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from search.records import Configuration
from search.schedulers.scheduler import SchedulerState

ALPHA = 0.05  # the chance, at most, that any contender is called better than the baseline though none is
BEYOND_DOUBT = 0.001
# What one training of a configuration differs in from the next; all else makes it another contender.
REPLICATE = ("seed", "fold")
# A contender that would come out ahead once in so many races is still in it.
_HOPE = 0.02
# After one training each, nothing is known of seeds: who is behind by so many standard errors over items is out.
_HOPELESS = 4.0
# This closed form and the bootstrap that has the last word differ a little: a race ends early where both agree.
_MARGIN = 0.8

Fate = Literal["in the race", "behind", "no better than the baseline", "failed"]


@dataclass(frozen=True)
class Arm:
    """One contender's trainings, in the order of the ledger, and what became of it after `rounds` of them."""

    replicates: tuple[Configuration, ...]
    fate: Fate = "in the race"
    rounds: int = 0

    @property
    def numbers(self) -> tuple[int, ...]:
        return tuple(one.number for one in self.replicates)

    def trained(self, rounds: int) -> list[Configuration]:
        """Those of the first `rounds` that have a result."""
        return [one for one in self.replicates[:rounds] if one.rungs and one.failure is None]

    def failed(self, rounds: int) -> bool:
        return any(one.failure is not None for one in self.replicates[:rounds])


@dataclass(frozen=True)
class RaceState:
    """Where a race is. The baseline comes first, then the contenders in the order in which they lead the search.

    `due`: the trainings that the race goes on with; none where it is over.
    """

    arms: tuple[Arm, ...]
    rounds: int  # completed
    due: tuple[Configuration, ...]

    @property
    def over(self) -> bool:
        return not self.due


def level(rounds: int, planned: int) -> float:
    """The share of ALPHA that the look after `rounds` of `planned` may spend; 0 after the first, which can't be tested.

    Haybittle (1971) and Peto (1976): a race that is not over is won only by what is beyond doubt, which leaves nearly
    all for the last look. The looks are added up: stopping early must not make a winner of chance.
    """
    if rounds < 2 or rounds > planned:
        return 0.0
    return BEYOND_DOUBT if rounds < planned else ALPHA - BEYOND_DOUBT * (planned - 2)


def race_state(history: Sequence[Configuration]) -> RaceState:
    """Round for round from what is known; equal histories stand equal, whoever asks and when."""
    arms = [Arm(group) for group in _groups(history)]
    planned = max((len(arm.replicates) for arm in arms), default=0)
    for done in range(1, planned + 1):
        running = [arm for place, arm in enumerate(arms) if place == 0 or arm.fate == "in the race"]
        # A training that failed is over too: its arm is out, or the baseline has one fewer.
        due = [one for arm in running for one in arm.replicates[done - 1 : done] if not one.rungs and not one.failure]
        if due:
            return RaceState(tuple(arms), done - 1, tuple(due))
        arms = _judged(arms, done, planned)
        if _known(arms, done, planned):
            return RaceState(tuple(arms), done, ())
    return RaceState(tuple(arms), planned, ())


def next_replicate(study: SchedulerState) -> Configuration | None:
    """The next training of the race; None while others run what is left of a round, and when it is over."""
    for one in race_state(study.history).due:
        if one.state in ("paused", "pruned"):
            return one
    return None


def _groups(history: Sequence[Configuration]) -> list[tuple[Configuration, ...]]:
    found: dict[str, list[Configuration]] = {}
    for one in history:
        params = {name: value for name, value in (one.params or {}).items() if name not in REPLICATE}
        found.setdefault(json.dumps(params, sort_keys=True), []).append(one)
    return [tuple(group) for group in found.values()]


def _judged(arms: Sequence[Arm], done: int, planned: int) -> list[Arm]:
    """The arms after `done` rounds: those that can't win any more are out."""
    judged = list(arms)
    base = _Table(arms[0], done)
    tables = {place: _Table(arm, done) for place, arm in enumerate(arms) if place and arm.fate == "in the race"}
    seeds = _Seeds([base, *(_Table(arm, done) for arm in arms[1:])], done)
    usable = {place: table for place, table in tables.items() if not arms[place].failed(done) and table.count}
    first = min(usable, key=lambda place: (usable[place].mean, place), default=None)
    for place, arm in enumerate(arms):
        if place not in tables:
            continue
        fate: Fate = "in the race"
        if place not in usable:
            fate = "failed"
        elif place != first and first is not None and _behind(tables[place], usable[first], seeds, done, planned):
            fate = "behind"
        elif base.count and _no_better(tables[place], base, seeds, done, planned, len(arms) - 1):
            fate = "no better than the baseline"
        judged[place] = Arm(arm.replicates, fate, done)
    return judged


def _known(arms: Sequence[Arm], done: int, planned: int) -> bool:
    """Whether more trainings would not change the answer."""
    left = [arm for arm in arms[1:] if arm.fate == "in the race"]
    if not left:
        return True
    if len(left) > 1 or done < 2:
        return False
    base, one = _Table(arms[0], done), _Table(left[0], done)
    seeds = _Seeds([_Table(arm, done) for arm in arms], done)
    if base.count < 2 or one.count < 2 or not seeds.freedom:
        return False
    error = math.sqrt(_items(one, base) + seeds.of_mean(one.count) + seeds.of_mean(base.count))
    share = _MARGIN * level(done, planned) / (len(arms) - 1)
    return bool(one.mean - base.mean < -_student(share, seeds.freedom) * error)


class _Table:
    """One arm's errors [trainings, items] on the first rounds, and its mean errors an item; in the study's own unit.

    Where errors by item are not recorded the values themselves are the only item.
    """

    def __init__(self, arm: Arm, done: int) -> None:
        trained = arm.trained(done)
        self.folds = tuple((one.params or {}).get("fold", 0) for one in trained)
        listed = [one.errors(one.steps) for one in trained]
        known = all(each is not None for each in listed)
        self.errors: list[Any] = [
            np.asarray(each if known else [one.value], float) for each, one in zip(listed, trained, strict=True)
        ]
        self.count = len(self.errors)
        self.means = np.array([each.mean() for each in self.errors])
        self.mean = float(self.means.mean()) if self.count else math.inf


class _Seeds:
    """The spread between trainings of one arm, all arms together; with folds, without what a fold does to every arm."""

    def __init__(self, tables: Sequence[_Table], done: int) -> None:
        several = [table for table in tables if table.count > 1]
        self.variance, self.freedom = 0.0, 0
        if not several:
            return
        if any(len(set(table.folds)) > 1 for table in several):
            whole = np.array([table.means for table in several if table.count == done])
            if len(whole) < 2:
                return
            rest = whole - whole.mean(axis=1, keepdims=True) - whole.mean(axis=0) + whole.mean()
            self.freedom = (len(whole) - 1) * (done - 1)
            self.variance = float((rest**2).sum()) / self.freedom
            return
        self.freedom = sum(table.count - 1 for table in several)
        squares = sum(float(((table.means - table.mean) ** 2).sum()) for table in several)
        self.variance = squares / self.freedom

    def of_mean(self, count: int) -> float:
        """The variance of a mean over `count` trainings."""
        return self.variance / count

    def to_come(self, done: int, planned: int) -> float:
        """The standard deviation of what a difference of two means still moves by until all rounds are done."""
        return math.sqrt(2 * self.variance * (1 / done - 1 / planned))


def _items(one: _Table, other: _Table) -> float:
    """The variance of the difference of two means that comes from the choice of items, beyond what seeds hold.

    Each fold's items are seen by one training: there the spread between trainings holds all of it.
    """
    if len(set(one.folds)) > 1 or not one.count or not other.count or len(one.errors[0]) < 2:
        return 0.0
    mine, theirs = np.array(one.errors), np.array(other.errors)
    items = mine.shape[1]
    whole = float((mine.mean(axis=0) - theirs.mean(axis=0)).var(ddof=1)) / items
    together = 0.0
    for errors in (mine, theirs):
        if len(errors) > 1:
            rest = errors - errors.mean(axis=0)
            together += float(rest.var(axis=1, ddof=1).mean()) / (items * (len(errors) - 1))
    return float(max(0.0, whole - together))


def _behind(one: _Table, first: _Table, seeds: _Seeds, done: int, planned: int) -> bool:
    """Whether it can't be the best of all by their means any more."""
    gap = one.mean - first.mean
    if not seeds.freedom:
        return gap > _HOPELESS * math.sqrt(_items(one, first)) > 0
    return bool(gap > 0 and gap > _student(_HOPE, seeds.freedom) * seeds.to_come(done, planned))


def _no_better(one: _Table, base: _Table, seeds: _Seeds, done: int, planned: int, contenders: int) -> bool:
    """Whether the last round can't call it better than the baseline any more."""
    if not seeds.freedom:
        return one.mean - base.mean > _HOPELESS * math.sqrt(_items(one, base)) > 0
    error = math.sqrt(_items(one, base) + 2 * seeds.variance / planned)
    # By then the spread will be known from more trainings than now.
    freedom = seeds.freedom * (planned - 1) // (done - 1)
    needed = _student(level(planned, planned) / contenders, freedom) * error
    hoped = one.mean - base.mean - _student(_HOPE, seeds.freedom) * seeds.to_come(done, planned)
    return bool(hoped > -needed)


def _student(share: float, freedom: int) -> float:
    """The value that Student's t passes with probability `share`."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 1 - share))
