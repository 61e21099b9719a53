"""How far ahead luck alone puts the winner of a race: the same race, simulated among equals.

After each round the worse half of the contenders leaves (a drop-the-losers design: Thall, Simon and Ellenberg 1988,
Bauer and Kieser 1999), and what their trainings would have taken goes to those that stay. The best of the rest is
compared with the baseline after every round but the first. What that choosing and looking costs in sureness is not
bounded, as Bonferroni does, but simulated: the share of races among equals that end with as small a p.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ALPHA = 0.05  # the chance, at most, that any contender is called better than the baseline though none is
RACES = 100_000
# After a share of the rounds, this power of it is spent of ALPHA (Kim and DeMets 1987, family 3): early looks call a
# winner only where it is all but beyond doubt, and the last one keeps nearly everything.
_SPENDING_POWER = 4
_RACES_AT_ONCE = 5_000  # of which there are arrays [races, arms, rounds]
_SEED = 0
Floats = NDArray[np.float64]


def contenders_by_round(contenders: int, rounds: int) -> list[int]:
    """How many contenders train in each round, beside the baseline: half of those before, rounded up."""
    counts = [contenders]
    while len(counts) < rounds:
        counts.append(math.ceil(counts[-1] / 2))
    return counts[:rounds]


def planned_rounds(contenders: int, replicates: int) -> int:
    """The rounds that take no more trainings than `replicates` of each contender and of the baseline would."""
    left = (contenders + 1) * replicates
    rounds = 0
    while True:
        trainings = contenders_by_round(contenders, rounds + 1)[-1] + 1
        if trainings > left:
            return rounds
        left -= trainings
        rounds += 1


def planned_trainings(contenders: int, rounds: int) -> int:
    """Trainings of a race that goes through all of its rounds."""
    return sum(contenders_by_round(contenders, rounds)) + rounds


def spent(rounds: int, planned: int) -> float:
    """What the looks after round 2 to `rounds` of `planned` may spend of ALPHA together; no look is after the first."""
    if rounds < 2 or rounds > planned:
        return 0.0
    return float(ALPHA * (rounds / planned) ** _SPENDING_POWER)


@dataclass(frozen=True)
class RaceReference:
    """Races among equals.

    Attributes:
        contenders: how many begin, beside the baseline.
        planned: rounds.
        freedom: degrees of freedom of the variance between trainings, by rounds done; 0 after the first.
        bounds: by rounds done, the largest one-sided p of the leader against the baseline that calls it better. That p
            is of the comparison as if there were no other, by Student's t.
    """

    contenders: int
    planned: int
    freedom: tuple[int, ...]
    bounds: tuple[float, ...]
    _unstopped: tuple[Floats, ...]  # by rounds done: the sorted p of the races that no earlier look ended

    def adjusted(self, p: float, rounds: int) -> float:
        """The share of races among equals that end with as small a p as `p` after `rounds`, or ended before.

        It is at most `spent(rounds, planned)` where `p` is at most the bound (the stagewise order of Tsiatis, Rosner
        and Mehta 1984). 1 after the first round.
        """
        if rounds < 2:
            return 1.0
        races = self._unstopped[rounds]
        as_small = int(np.searchsorted(races, p, side="right"))
        return min(1.0, spent(rounds - 1, self.planned) + as_small / RACES)


@functools.lru_cache(maxsize=8)
def reference(contenders: int, planned: int) -> RaceReference:
    """Races of so many contenders over so many rounds; equal arguments give equal races."""
    freedom = [0]
    for rounds in range(1, planned + 1):
        counts = contenders_by_round(contenders, rounds)
        trained = [rounds, *(sum(index < count for count in counts) for index in range(contenders))]
        freedom.append(sum(trainings - 1 for trainings in trained))
    t = np.concatenate(list(_leaders_t(contenders, planned)))  # [races, rounds]
    is_running = np.ones(len(t), bool)
    bounds = [0.0, 0.0]
    unstopped: list[Floats] = [np.empty(0), np.empty(0)]
    for rounds in range(2, planned + 1):
        p = _student_share(freedom[rounds], t[:, rounds - 1])  # [races]
        unstopped.append(np.sort(p[is_running]))
        allowed = math.floor((spent(rounds, planned) - spent(rounds - 1, planned)) * len(p))
        bounds.append(float(unstopped[-1][max(0, allowed - 1)]))
        is_running &= p > bounds[-1]
    return RaceReference(contenders, planned, tuple(freedom), tuple(bounds), tuple(unstopped))


def _leaders_t(contenders: int, planned: int) -> Iterator[Floats]:
    """Student's t of the leader against the baseline after each round, [races, rounds] at a time; 0 after the first."""
    rng = np.random.default_rng(_SEED)
    counts = contenders_by_round(contenders, planned)
    for _ in range(0, RACES, _RACES_AT_ONCE):
        luck = rng.standard_normal((_RACES_AT_ONCE, contenders + 1, planned))
        rounds_done = np.arange(1, planned + 1)
        means = luck.cumsum(axis=2) / rounds_done  # of the first rounds [races, arms, rounds]
        squares = (luck**2).cumsum(axis=2) - rounds_done * means**2  # about their mean
        t = np.zeros((_RACES_AT_ONCE, planned))
        rank = np.zeros((_RACES_AT_ONCE, contenders), int)  # among those in the race; larger than any: out
        dropped = np.zeros(_RACES_AT_ONCE)  # squares of those that left
        freedom = 0  # of those that left
        for rounds, count in enumerate(counts, start=1):
            racing = rank < count
            if rounds > 1:
                left = (rank >= count) & (rank < counts[rounds - 2])
                dropped += (squares[:, 1:, rounds - 2] * left).sum(axis=1)
                freedom += (counts[rounds - 2] - count) * (rounds - 2)
            standing = np.where(racing, means[:, 1:, rounds - 1], math.inf)
            if rounds > 1:
                within = dropped + squares[:, 0, rounds - 1] + (squares[:, 1:, rounds - 1] * racing).sum(axis=1)
                variance = within / (freedom + (count + 1) * (rounds - 1))
                lead = standing.min(axis=1) - means[:, 0, rounds - 1]
                t[:, rounds - 1] = lead / np.sqrt(2 * variance / rounds)
            rank = standing.argsort(axis=1).argsort(axis=1)
        yield t


def _student_share(freedom: int, t: Floats) -> Floats:
    """The share of Student's t with so many degrees of freedom that lies below `t`."""
    from scipy.special import stdtr  # slow to import

    shares: Floats = stdtr(freedom, t)
    return shares
