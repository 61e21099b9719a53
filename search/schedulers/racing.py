"""A race (F-Race) between few configurations, each trained several times: who cannot win any more, and when it is over.

A contender's trainings differ in seed or fold alone. After each round the worse half of the contenders leaves; what
that and the looks after each round cost in sureness is simulated (race_reference.py). Races that began before, of the
strategy `race`, keep every contender that could still win. Shapes: [trainings, items], where an item is a clip.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from search.records import Configuration
from search.schedulers import race_reference
from search.schedulers.race_reference import ALPHA
from search.schedulers.scheduler import SchedulerState

STRATEGY = "drop-losers"  # of a race that begins now
BEYOND_DOUBT = 0.001
# Parameters that differ between the trainings of one contender; any other difference makes another contender.
REPLICATE = ("seed", "fold")
# A race goes on for a contender that would win at least so often if it went on as until now.
_HOPE = 0.10
_FORMER_HOPE = 0.02  # in races that drop nobody for being behind
# After one training each nothing is known about seeds: a contender this many standard errors over items behind is out.
_HOPELESS = 4.0
# This closed form and the bootstrap that has the last word differ a little: a race ends early only where both agree.
_MARGIN = 0.8

Fate = Literal["in the race", "behind", "no better than the baseline", "failed"]
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Arm:
    """One contender's trainings, in the order of the ledger, and its fate after `rounds` of them."""

    replicates: tuple[Configuration, ...]
    fate: Fate = "in the race"
    rounds: int = 0

    @property
    def numbers(self) -> tuple[int, ...]:
        return tuple(training.number for training in self.replicates)

    def trained(self, rounds: int) -> list[Configuration]:
        """Those of the first `rounds` that have a result."""
        return [training for training in self.replicates[:rounds] if training.rungs and training.failure is None]

    def failed(self, rounds: int) -> bool:
        return any(training.failure is not None for training in self.replicates[:rounds])


@dataclass(frozen=True)
class RaceState:
    """The state of a race. The baseline comes first, then the contenders in the order in which they lead the search."""

    arms: tuple[Arm, ...]
    rounds: int  # completed
    due: tuple[Configuration, ...]  # the trainings that are still missing in the next round; none when it is over

    @property
    def over(self) -> bool:
        return not self.due


def level(rounds: int, planned: int, drops: bool = True) -> float:
    """What the p of the test after `rounds` of `planned` may be; 0 after the first round, which has no test.

    Of a race that `drops` its losers the p is race_reference's, and what earlier looks spent is in it. In a former one,
    Haybittle (1971) and Peto (1976): before the last round a race is won only by what is beyond doubt, which leaves
    nearly all of ALPHA for the last test. The shares add up to ALPHA, so stopping early makes no winner of chance.
    """
    if drops:
        return race_reference.spent(rounds, planned)
    if rounds < 2 or rounds > planned:
        return 0.0
    return BEYOND_DOUBT if rounds < planned else ALPHA - BEYOND_DOUBT * (planned - 2)


def drops_losers(strategy: str) -> bool:
    """Whether a race of this strategy drops the worse half of its contenders after each round."""
    return strategy == STRATEGY


def race_state(history: Sequence[Configuration], drops: bool = True) -> RaceState:
    """The race judged round by round; equal histories give equal states, whoever asks and when."""
    arms = _arms(history)
    planned = max((len(arm.replicates) for arm in arms), default=0)
    for rounds in range(1, planned + 1):
        due = _due(arms, rounds)
        if due:
            return RaceState(tuple(arms), rounds - 1, tuple(due))
        arms = _judged(arms, rounds, planned, drops)
        if _is_decided(arms, rounds, planned, drops):
            return RaceState(tuple(arms), rounds, ())
    return RaceState(tuple(arms), planned, ())


def next_replicate(state: SchedulerState) -> Configuration | None:
    """The next training of the race; None while the rest of a round is running elsewhere, and when it is over."""
    for training in race_state(state.history, drops_losers(state.config.strategy)).due:
        if training.state in ("paused", "pruned"):
            return training
    return None


def _arms(history: Sequence[Configuration]) -> list[Arm]:
    groups: dict[str, list[Configuration]] = {}
    for training in history:
        shared = {name: value for name, value in (training.params or {}).items() if name not in REPLICATE}
        groups.setdefault(json.dumps(shared, sort_keys=True), []).append(training)
    return [Arm(tuple(group)) for group in groups.values()]


def _due(arms: Sequence[Arm], rounds: int) -> list[Configuration]:
    """Missing trainings of round `rounds`: of the baseline and of those in the race."""
    due = []
    for index, arm in enumerate(arms):
        is_running = index == 0 or arm.fate == "in the race"
        if not is_running or len(arm.replicates) < rounds:
            continue
        training = arm.replicates[rounds - 1]
        # A training that failed is not repeated: its arm is out, or the baseline has one fewer.
        if not training.rungs and not training.failure:
            due.append(training)
    return due


def _judged(arms: Sequence[Arm], rounds: int, planned: int, drops: bool) -> list[Arm]:
    """The arms after `rounds` rounds: contenders that cannot win any more are out."""
    tables = [_ErrorTable(arm, rounds) for arm in arms]
    racing = [index for index, arm in enumerate(arms) if index > 0 and arm.fate == "in the race"]
    judge = _Judge(tables[0], _SeedSpread(tables, rounds, drops), rounds, planned, len(arms) - 1, drops)
    usable = [index for index in racing if tables[index].count and not arms[index].failed(rounds)]
    usable.sort(key=lambda index: (tables[index].mean, index))
    staying = judge.staying(usable, tables)
    judged = list(arms)
    for index in racing:
        fate: Fate = "in the race"
        if index not in usable:
            fate = "failed"
        elif index not in staying:
            fate = "behind"
        elif tables[0].count and judge.is_no_better(tables[index]):
            fate = "no better than the baseline"
        judged[index] = replace(arms[index], fate=fate, rounds=rounds)
    return judged


def _is_decided(arms: Sequence[Arm], rounds: int, planned: int, drops: bool) -> bool:
    """Whether more trainings would not change the answer."""
    racing = [_ErrorTable(arm, rounds) for arm in arms[1:] if arm.fate == "in the race"]
    if not racing:
        return True
    if rounds < 2 or (len(racing) > 1 and not drops):
        return False
    baseline = _ErrorTable(arms[0], rounds)
    contender = min(racing, key=lambda table: table.mean)
    spread = _SeedSpread([_ErrorTable(arm, rounds) for arm in arms], rounds, drops)
    if baseline.count < 2 or contender.count < 2 or not spread.freedom:
        return False
    variance = _item_variance(contender, baseline) + spread.of_mean(contender.count) + spread.of_mean(baseline.count)
    contenders = len(arms) - 1
    if drops:
        share = _MARGIN * race_reference.reference(contenders, planned).bounds[rounds]
    else:
        share = _MARGIN * level(rounds, planned, drops=False) / contenders
    return bool(contender.mean - baseline.mean < -_student(share, spread.freedom) * math.sqrt(variance))


class _ErrorTable:
    """One arm's errors in the first rounds, in the study's own unit.

    Where errors by item are not recorded, the values themselves are the only item.
    """

    def __init__(self, arm: Arm, rounds: int) -> None:
        trained = arm.trained(rounds)
        by_item = all(training.errors(training.steps) is not None for training in trained)
        self.folds = tuple((training.params or {}).get("fold", 0) for training in trained)
        self.errors: list[Array] = []  # a row [items] for each training
        for training in trained:
            errors = training.errors(training.steps) if by_item else [training.value]
            self.errors.append(np.asarray(errors, float))
        self.count = len(self.errors)
        self.means = np.array([row.mean() for row in self.errors])  # [trainings]
        self.mean = float(self.means.mean()) if self.count else math.inf

    @property
    def has_folds(self) -> bool:
        return len(set(self.folds)) > 1


class _SeedSpread:
    """The variance between trainings of one arm, pooled over all arms; with folds, without what a fold does to all."""

    def __init__(self, tables: Sequence[_ErrorTable], rounds: int, drops: bool) -> None:
        repeated = [table for table in tables if table.count > 1]
        self.variance = 0.0
        self.freedom = 0  # degrees of freedom; 0: nothing is known
        if not repeated:
            return
        if any(table.has_folds for table in repeated):
            # Of those that are out only where that is usual.
            compared = [table.means for table in repeated if drops or table.count == rounds]
            if len(compared) > 1:
                self.variance, self.freedom = two_way_variance(compared)
            return
        self.freedom = sum(table.count - 1 for table in repeated)
        squares = sum(float(((table.means - table.mean) ** 2).sum()) for table in repeated)
        self.variance = squares / self.freedom

    def of_mean(self, count: int) -> float:
        """The variance of a mean over `count` trainings."""
        return self.variance / count

    def to_come(self, rounds: int, planned: int) -> float:
        """The standard deviation of the change of a difference of two means until all rounds are done."""
        return math.sqrt(2 * self.variance * (1 / rounds - 1 / planned))


def _item_variance(first: _ErrorTable, second: _ErrorTable) -> float:
    """The variance of the difference of two means that comes from the choice of items, beyond the spread of seeds.

    With folds each item is seen by one training, and the spread between trainings holds all of it.
    """
    if first.has_folds or not first.count or not second.count or len(first.errors[0]) < 2:
        return 0.0
    tables = (np.array(first.errors), np.array(second.errors))  # each [trainings, items]
    items = tables[0].shape[1]
    total = float((tables[0].mean(axis=0) - tables[1].mean(axis=0)).var(ddof=1)) / items
    from_seeds = 0.0
    for errors in tables:
        if len(errors) > 1:
            residuals = errors - errors.mean(axis=0)
            from_seeds += float(residuals.var(axis=1, ddof=1).mean()) / (items * (len(errors) - 1))
    return float(max(0.0, total - from_seeds))


@dataclass(frozen=True)
class _Judge:
    """What decides on a contender after `rounds` of the `planned` ones."""

    baseline: _ErrorTable
    spread: _SeedSpread
    rounds: int
    planned: int
    contenders: int
    drops: bool

    def staying(self, ranked: Sequence[int], tables: Sequence[_ErrorTable]) -> Sequence[int]:
        """Of the contenders `ranked`, best first, those that are not behind: the better half, or who can still lead."""
        if self.drops:
            return ranked[: race_reference.contenders_by_round(self.contenders, self.rounds + 1)[-1]]
        first = ranked[:1]
        return [*first, *(index for index in ranked[1:] if not self._is_behind(tables[index], tables[first[0]]))]

    def _is_behind(self, table: _ErrorTable, first: _ErrorTable) -> bool:
        """Whether it cannot become the contender with the best mean any more."""
        gap = table.mean - first.mean
        if not self.spread.freedom:
            return gap > _HOPELESS * math.sqrt(_item_variance(table, first)) > 0
        return bool(gap > 0 and gap > self._hoped_change())

    def is_no_better(self, table: _ErrorTable) -> bool:
        """Whether the last round cannot call it better than the baseline any more."""
        gap = table.mean - self.baseline.mean
        if not self.spread.freedom:
            return gap > _HOPELESS * math.sqrt(_item_variance(table, self.baseline)) > 0
        error = math.sqrt(_item_variance(table, self.baseline) + 2 * self.spread.variance / self.planned)
        # By then the spread will be known from more trainings than now.
        if self.drops:
            reference = race_reference.reference(self.contenders, self.planned)
            needed = _student(reference.bounds[self.planned], reference.freedom[self.planned]) * error
        else:
            freedom = self.spread.freedom * (self.planned - 1) // (self.rounds - 1)
            share = level(self.planned, self.planned, drops=False) / self.contenders
            needed = _student(share, freedom) * error
        return bool(gap - self._hoped_change() > -needed)

    def _hoped_change(self) -> float:
        hope = _HOPE if self.drops else _FORMER_HOPE
        return _student(hope, self.spread.freedom) * self.spread.to_come(self.rounds, self.planned)


def two_way_variance(rows: Sequence[Array]) -> tuple[float, int]:
    """The variance of values beside what each row and each column adds, by least squares, and its degrees of freedom.

    Args:
        rows: each of the first columns, as many as it has.
    """
    columns = max(len(row) for row in rows)
    design = []  # [values, rows + columns]
    for index, row in enumerate(rows):
        for column in range(len(row)):
            terms = np.zeros(len(rows) + columns)
            terms[index] = 1.0
            terms[len(rows) + column] = 1.0
            design.append(terms)
    values = np.concatenate(rows)
    coefficients, _, rank, _ = np.linalg.lstsq(np.array(design), values, rcond=None)
    freedom = len(values) - int(rank)
    if freedom <= 0:
        return 0.0, 0
    residuals = values - np.array(design) @ coefficients
    return float((residuals**2).sum()) / freedom, freedom


def _student(share: float, freedom: int) -> float:
    """The value that Student's t exceeds with probability `share`."""
    from scipy.special import stdtrit  # slow to import

    return float(stdtrit(freedom, 1 - share))
