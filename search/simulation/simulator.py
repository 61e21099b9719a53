"""The same engine on recorded curves, in virtual time: what a way of searching costs until it has found a good one."""

from __future__ import annotations

import heapq
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from search.process_id import ProcessId
from search.records import Claim, Configuration, best_configuration
from search.samplers import sampler as sampling
from search.schedulers import paired_test
from search.schedulers.scheduler import SchedulerConfig
from search.simulation.benchmark_table import BenchmarkTable, Curve
from search.simulation.memory_ledger import MemoryLedger
from search.space import encoding

# A configuration is as good as the best if it is within this share of the best value, or can't be told from it.
WITHIN = 0.02


@dataclass(frozen=True)
class Method:
    """A way of searching: ladder and sampler, as a space's budget names them.

    `trials`: configurations of one study; when it has ended without reaching the target, as many more are added, as
    a person would who raises `--trials`. None: no end.
    """

    name: str
    strategy: str
    sampler: str
    eta: int = SchedulerConfig.eta
    trials: int | None = None
    rungs: tuple[int, ...] | None = None  # None: the table's


@dataclass(frozen=True)
class SimulationResult:
    """One search until its target. `cost`: seconds of all workers' segments by then; `seconds`: on the clock."""

    method: str
    seed: int
    cost: float
    seconds: float
    configurations: int
    reached: bool


def good_curves(table: BenchmarkTable, within: float = WITHIN) -> frozenset[int]:
    """The curves that are good enough: within a share of the best value, or not told apart from the best.

    Where clips' errors are known, evaluation noise is one standard error of the paired difference to the best.
    """
    best = table.best
    limit = table.full(best) * (1 + within)
    found = {index for index, one in enumerate(table.curves) if table.full(one) <= limit}
    mine = best.rungs[-1].metrics.get("errors")
    for index, one in enumerate(table.curves):
        theirs = one.rungs[-1].metrics.get("errors") if math.isfinite(table.full(one)) else None
        if mine and theirs and paired_test.paired_z(mine, theirs) <= 1.0:
            found.add(index)
    return frozenset(found)


class SimulatedSearch:
    """One search on a table; its curves are used up one by one, the nearest to what was drawn first."""

    def __init__(
        self, table: BenchmarkTable, way: Method, seed: int, workers: int, prior: Mapping[str, Any] | None = None
    ) -> None:
        self.table, self.method, self.seed, self.workers = table, way, seed, workers
        self.scheduler_config = SchedulerConfig(way.rungs or table.rungs, way.strategy, way.eta)
        self.ledger = MemoryLedger(table.study, min(way.trials or len(table.curves), len(table.curves)))
        self.taken: dict[int, int] = {}  # configuration -> curve
        self.prior = prior
        self._points = np.stack([encoding.features(table.search, one.drawn) for one in table.curves])
        self._free = np.ones(len(table.curves), dtype=bool)

    def run(self, good: frozenset[int], once: bool = False) -> SimulationResult:
        """Until one of the curves `good` was trained in full, or the table is used up; `once`: until the study ends."""
        now = spent = 0.0
        running: list[tuple[float, int, Claim]] = []
        idle, me = self.workers, ProcessId.current()
        while True:
            while idle and (claim := self._claim(me)) is not None:
                heapq.heappush(running, (now + self._seconds(claim), claim.number, claim))
                idle -= 1
            if not running:
                if once or not self._go_on():
                    return self._outcome(spent, now, reached=False)
                continue
            now, number, claim = heapq.heappop(running)
            idle += 1
            spent += self._seconds(claim)
            state = self._commit(claim)
            if state == "finished" and self.taken[number] in good:
                # What others are at has been paid for up to now.
                spent += sum(max(0.0, self._seconds(one) - (end - now)) for end, _, one in running)
                return self._outcome(spent, now, reached=True)

    def _go_on(self) -> bool:
        """What a person does whose search ended without success: ask for more configurations, then let more of them
        past each rung. False: nothing is left to ask for."""
        if self.ledger.trials < len(self.table.curves):
            more = self.ledger.trials + (self.method.trials or 0)
            self.ledger.set_trials(min(more, len(self.table.curves)))
        elif self.scheduler_config.eta > 1:
            self.scheduler_config = replace(self.scheduler_config, eta=self.scheduler_config.eta - 1)
        else:
            return False
        return True

    def found(self) -> float:
        """The value in full of the configuration that a person would take now; infinite where there is none."""
        one = best_configuration(self.ledger.history())
        return math.inf if one is None else self.table.full(self.table.curves[self.taken[one.number]])

    def _outcome(self, spent: float, now: float, reached: bool) -> SimulationResult:
        return SimulationResult(self.method.name, self.seed, spent, now, len(self.taken), reached)

    def _claim(self, me: ProcessId) -> Claim | None:
        claim = self.ledger.claim(me, self.scheduler_config)
        if claim is None or claim.params is not None:
            return claim
        drawn = sampling.draw(
            self.table.search,
            claim.history,
            seed=self.seed,
            number=claim.number,
            last_rung=self.scheduler_config.last_rung,
            sampler=self.method.sampler,
            given=self.prior if claim.number == 0 else None,
        )
        index = self._nearest(drawn)
        self.taken[claim.number], self._free[index] = index, False
        drawn = dict(self.table.curves[index].drawn)
        self.ledger.set_params(claim, drawn, drawn, "sampled")
        return replace(claim, drawn=drawn, params=drawn)

    def _nearest(self, drawn: Mapping[str, Any]) -> int:
        distance = ((self._points - encoding.features(self.table.search, drawn)) ** 2).sum(1)
        distance[~self._free] = np.inf
        return int(distance.argmin())

    def _curve(self, claim: Claim) -> Curve:
        return self.table.curves[self.taken[claim.number]]

    def _seconds(self, claim: Claim) -> float:
        """What the segment costs: between rungs that the ladder leaves out no evaluation is paid for, nearly."""
        steps = range(claim.first_step + 1, claim.last_step + 1)
        return math.fsum(rung.metrics["train_seconds"] for rung in self._curve(claim).rungs if rung.step in steps)

    def _commit(self, claim: Claim) -> str | None:
        rung = next((one for one in self._curve(claim).rungs if one.step == claim.last_step), None)
        if rung is None or not math.isfinite(rung.value):
            self.ledger.fail(claim, "diverged", "its recorded training failed")
            return "failed"
        return self.ledger.commit(claim, rung.value, rung.metrics, self.scheduler_config)


def simulate(
    table: BenchmarkTable,
    ways: Sequence[Method],
    seeds: Sequence[int],
    *,
    workers: int = 1,
    within: float = WITHIN,
    prior: Mapping[str, Any] | None = None,
) -> list[SimulationResult]:
    """Every way of searching with every seed: what each cost until a configuration trained in full was good enough.

    `prior` is the configuration that each search tries first.
    """
    good = good_curves(table, within)
    return [SimulatedSearch(table, way, seed, workers, prior).run(good) for way in ways for seed in seeds]


def run_to_end(
    table: BenchmarkTable, way: Method, seeds: Sequence[int], trials: int
) -> tuple[list[float], list[float]]:
    """Studies of so many configurations, to their end: by seed, the leader's excess over the best, and the cost.

    The excess is relative (0.1: a tenth worse than the best), the cost in trainings in full.
    """
    excess, spent = [], []
    for seed in seeds:
        one = SimulatedSearch(table, replace(way, trials=trials), seed, workers=1)
        spent.append(one.run(frozenset(), once=True).cost / table.training_seconds)
        excess.append(one.found() / table.full(table.best) - 1.0)
    return excess, spent


@dataclass(frozen=True)
class ScalingPoint:
    """Studies with so many workers, to their end: medians over seeds."""

    workers: int
    seconds: float  # on the clock
    cost: float  # of all workers' segments; more than one worker's where more is begun or promoted than needed
    speedup: float  # one worker's time on the clock over this one's, seed by seed

    @property
    def efficiency(self) -> float:
        """The share of perfect scaling."""
        return self.speedup / self.workers


def scaling(
    table: BenchmarkTable, way: Method, seeds: Sequence[int], trials: int, workers: Sequence[int]
) -> list[ScalingPoint]:
    """The same study of `trials` configurations with more and more workers."""

    def ended(count: int) -> list[SimulationResult]:
        ways = replace(way, trials=trials)
        return [SimulatedSearch(table, ways, seed, count).run(frozenset(), once=True) for seed in seeds]

    alone = ended(1)
    found = []
    for count in workers:
        all_ = alone if count == 1 else ended(count)
        gains = [one.seconds / many.seconds for one, many in zip(alone, all_, strict=True)]
        times, costs = ([getattr(one, name) for one in all_] for name in ("seconds", "cost"))
        found.append(ScalingPoint(count, statistics.median(times), statistics.median(costs), statistics.median(gains)))
    return found


@dataclass(frozen=True)
class CostSummary:
    """Of one way over all seeds, in trainings in full of the table's average."""

    median: float
    percentile_90: float  # 90th percentile
    reached: int  # searches that got there


def costs(table: BenchmarkTable, outcomes: Sequence[SimulationResult]) -> dict[str, CostSummary]:
    """By way, in the order in which they first occur."""
    found: dict[str, list[SimulationResult]] = {}
    for one in outcomes:
        found.setdefault(one.method, []).append(one)
    unit = table.training_seconds
    return {
        way: CostSummary(
            statistics.median(one.cost / unit for one in all_),
            float(np.quantile([one.cost / unit for one in all_], 0.9)),
            sum(one.reached for one in all_),
        )
        for way, all_ in found.items()
    }


def told(history: Sequence[Configuration]) -> list[tuple[int, str, dict[int, float]]]:
    """What a search came to, without its times."""
    return [(one.number, one.state, one.curve) for one in history]
