"""The same engine on recorded curves, in virtual time: what a search method costs until it has found a good curve."""

from __future__ import annotations

import heapq
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from search.process_id import ProcessId
from search.records import Claim, Configuration, best_configuration
from search.samplers import sampler as sampling
from search.samplers.earlier import EarlierStudies
from search.samplers.knowledge import Knowledge
from search.schedulers import paired_test
from search.schedulers.scheduler import SchedulerConfig, Spend
from search.simulation.benchmark_table import BenchmarkTable, Curve
from search.simulation.memory_ledger import MemoryLedger
from search.space import encoding
from search.space.distributions import Range

# A curve is as good as the best if it ends within this share of the best value, or can't be told from it.
WITHIN = 0.02


# (search, history, seed, number, last rung) -> values of every searched knob
Draw = Callable[[Mapping[str, Range], Sequence[Configuration], int, int, int], dict[str, Any]]


@dataclass(frozen=True)
class Method:
    """A search method: scheduler and sampler, as a space's budget names them.

    `trials`: configurations of one study; when it has ended without reaching the target, as many more are added, as
    a person would who raises `--trials`. None: as many as the table has.
    """

    name: str
    strategy: str
    sampler: str
    eta: int = SchedulerConfig.eta
    trials: int | None = None
    rungs: tuple[int, ...] | None = None  # None: the table's
    spend: Spend | None = None
    draw: Draw | None = None  # of a sampler that no space file can ask for
    # (table, seed, whether a recipe is given) -> what earlier studies know
    earlier: Callable[[BenchmarkTable, int, bool], EarlierStudies | None] | None = None


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
    """The indices of curves that are good enough: within a share of the best value, or not told apart from the best.

    If clips' errors are known, a curve within one standard error of the paired difference to the best counts too.
    """
    best = table.best
    limit = table.full_value(best) * (1 + within)
    best_errors = best.rungs[-1].metrics.get("errors")
    good = set()
    for index, curve in enumerate(table.curves):
        value = table.full_value(curve)
        errors = curve.rungs[-1].metrics.get("errors") if math.isfinite(value) else None
        if value <= limit or (best_errors and errors and paired_test.paired_z(best_errors, errors) <= 1.0):
            good.add(index)
    return frozenset(good)


class SimulatedSearch:
    """One search on a table, whose curves are used up one by one: the nearest free one to what was sampled.

    Args:
        prior: The configuration that is tried first, as a `start` entry of a space file.

    Attributes:
        course: What a person would have had after so many seconds of all workers: (seconds, the leader's value in
            full), one pair a result.
    """

    def __init__(
        self, table: BenchmarkTable, method: Method, seed: int, workers: int, prior: Mapping[str, Any] | None = None
    ) -> None:
        self.table = table
        self.method = method
        self.seed = seed
        self.workers = workers
        self.scheduler_config = SchedulerConfig(
            method.rungs or table.rungs, method.strategy, method.eta, spend=method.spend
        )
        self.course: list[tuple[float, float]] = []
        self.ledger = MemoryLedger(table.study, min(method.trials or len(table.curves), len(table.curves)))
        self.taken: dict[int, int] = {}  # a configuration's number -> its curve's index
        self.prior = prior
        earlier = method.earlier(table, seed, prior is not None) if method.earlier else None
        self._knowledge = Knowledge(earlier, table.search) if earlier else None
        self._points = np.stack([encoding.features(table.search, curve.drawn) for curve in table.curves])
        self._free = np.ones(len(table.curves), dtype=bool)  # [curves]

    def run(self, good: frozenset[int], once: bool = False) -> SimulationResult:
        """Search until one of the curves `good` was trained in full or the table is used up; `once`: one study only."""
        now = 0.0
        spent = 0.0
        running: list[tuple[float, int, Claim]] = []  # when it ends, the configuration's number
        idle = self.workers
        worker = ProcessId.current()
        while True:
            while idle and (claim := self._claim(worker)) is not None:
                heapq.heappush(running, (now + self._seconds(claim), claim.number, claim))
                idle -= 1
            if not running:
                if once or not self._extend():
                    return self._result(spent, now, reached=False)
                continue
            now, number, claim = heapq.heappop(running)
            idle += 1
            spent += self._seconds(claim)
            state = self._commit(claim)
            # What is running has been paid for up to now.
            begun = math.fsum(max(0.0, self._seconds(other_claim) - (end - now)) for end, _, other_claim in running)
            self.course.append((spent + begun, self.leader_value()))
            if state == "finished" and self.taken[number] in good:
                return self._result(spent + begun, now, reached=True)

    def _extend(self) -> bool:
        """Do what a person does whose search ended without success; False: nothing is left to do.

        First ask for more configurations, then spend more on them: let more of them past each rung.
        """
        if self.ledger.trials < len(self.table.curves):
            more = self.ledger.trials + (self.method.trials or 0)
            self.ledger.set_trials(min(more, len(self.table.curves)))
        elif self.scheduler_config.is_planned:
            share = self.scheduler_config.planned_trainings(self.ledger.trials) / self.ledger.trials
            # At last what looked hopeless, too.
            more_spend = min(1.0, 2.0 * share) if share < 1.0 else None
            self.scheduler_config = replace(self.scheduler_config, spend=more_spend, eta=1)
        elif self.scheduler_config.eta > 1:
            self.scheduler_config = replace(self.scheduler_config, eta=self.scheduler_config.eta - 1)
        else:
            return False
        return True

    def leader_value(self) -> float:
        """The value in full of the configuration that a person would take now; infinite if there is none."""
        configuration = best_configuration(self.ledger.history())
        if configuration is None:
            return math.inf
        return self.table.full_value(self.table.curves[self.taken[configuration.number]])

    def _result(self, spent: float, now: float, reached: bool) -> SimulationResult:
        return SimulationResult(self.method.name, self.seed, spent, now, len(self.taken), reached)

    def _claim(self, worker: ProcessId) -> Claim | None:
        """The next claim, its parameters those of the free curve nearest to what the sampler draws."""
        claim = self.ledger.claim(worker, self.scheduler_config)
        if claim is None or claim.params is not None:
            return claim
        drawn = self._draw(claim)
        index = self._nearest(drawn)
        self.taken[claim.number] = index
        self._free[index] = False
        recorded = dict(self.table.curves[index].drawn)
        is_given = claim.number == 0 and self.prior is not None
        self.ledger.set_params(claim, recorded, recorded, "start" if is_given else "sampled")
        return replace(claim, drawn=recorded, params=recorded)

    def _draw(self, claim: Claim) -> Mapping[str, Any]:
        given = self.prior if claim.number == 0 else None
        last_rung = self.scheduler_config.last_rung
        if self.method.draw is not None:
            return given or self.method.draw(self.table.search, claim.history, self.seed, claim.number, last_rung)
        return sampling.draw(
            self.table.search,
            claim.history,
            seed=self.seed,
            number=claim.number,
            last_rung=last_rung,
            sampler=self.method.sampler,
            given=given,
            knowledge=self._knowledge,
        )

    def _nearest(self, drawn: Mapping[str, Any]) -> int:
        distances = ((self._points - encoding.features(self.table.search, drawn)) ** 2).sum(1)  # [curves]
        distances[~self._free] = np.inf
        return int(distances.argmin())

    def _curve(self, claim: Claim) -> Curve:
        return self.table.curves[self.taken[claim.number]]

    def _seconds(self, claim: Claim) -> float:
        """What the segment costs. It includes the evaluations at rungs that the scheduler skips: a small error."""
        steps = range(claim.first_step + 1, claim.last_step + 1)
        return math.fsum(rung.metrics["train_seconds"] for rung in self._curve(claim).rungs if rung.step in steps)

    def _commit(self, claim: Claim) -> str | None:
        rung = next((rung for rung in self._curve(claim).rungs if rung.step == claim.last_step), None)
        if rung is None or not math.isfinite(rung.value):
            self.ledger.fail(claim, "diverged", "its recorded training failed")
            return "failed"
        metrics = {**rung.metrics, "train_seconds": self._seconds(claim)}
        return self.ledger.commit(claim, rung.value, metrics, self.scheduler_config)


def simulate(
    table: BenchmarkTable,
    methods: Sequence[Method],
    seeds: Sequence[int],
    *,
    workers: int = 1,
    within: float = WITHIN,
    prior: Mapping[str, Any] | None = None,
) -> list[SimulationResult]:
    """Run every method with every seed until a configuration trained in full is good enough (see `good_curves`).

    `prior` is the configuration that each search tries first.
    """
    good = good_curves(table, within)
    results = []
    for method in methods:
        for seed in seeds:
            results.append(SimulatedSearch(table, method, seed, workers, prior).run(good))
    return results


@dataclass(frozen=True)
class ScalingPoint:
    """Studies with so many workers, to their end: medians over seeds."""

    workers: int
    seconds: float  # on the clock
    cost: float  # of all workers' segments; several workers start or promote more than needed
    speedup: float  # one worker's time on the clock over this one's, seed by seed

    @property
    def efficiency(self) -> float:
        """The share of perfect scaling."""
        return self.speedup / self.workers


def scaling(
    table: BenchmarkTable, method: Method, seeds: Sequence[int], trials: int, workers: Sequence[int]
) -> list[ScalingPoint]:
    """Run the same study of `trials` configurations with each number of workers."""
    alone = _studies(table, method, seeds, trials, workers=1)
    points = []
    for count in workers:
        results = alone if count == 1 else _studies(table, method, seeds, trials, count)
        point = ScalingPoint(
            workers=count,
            seconds=statistics.median(result.seconds for result in results),
            cost=statistics.median(result.cost for result in results),
            speedup=statistics.median(
                single.seconds / result.seconds for single, result in zip(alone, results, strict=True)
            ),
        )
        points.append(point)
    return points


def _studies(
    table: BenchmarkTable, method: Method, seeds: Sequence[int], trials: int, workers: int
) -> list[SimulationResult]:
    """Whole studies, one a seed."""
    sized = replace(method, trials=trials)
    return [SimulatedSearch(table, sized, seed, workers).run(frozenset(), once=True) for seed in seeds]


@dataclass(frozen=True)
class CostSummary:
    """Costs of one method over all seeds, in trainings in full of the table's average."""

    median: float
    percentile_90: float
    reached: int  # how many searches reached the target


def costs(table: BenchmarkTable, results: Sequence[SimulationResult]) -> dict[str, CostSummary]:
    """Summarize results by method, in the order in which the methods first occur."""
    by_method: dict[str, list[SimulationResult]] = {}
    for result in results:
        by_method.setdefault(result.method, []).append(result)
    training_seconds = table.training_seconds
    summaries = {}
    for method, method_results in by_method.items():
        trainings = [result.cost / training_seconds for result in method_results]
        summaries[method] = CostSummary(
            median=statistics.median(trainings),
            percentile_90=float(np.quantile(trainings, 0.9)),
            reached=sum(result.reached for result in method_results),
        )
    return summaries
