"""What people ask of a search: how far from the best after so many trainings, and where a study ends at what cost."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from search.simulation.benchmark_table import BenchmarkTable
from search.simulation.simulator import Method, SimulatedSearch

POINTS = (1, 2, 4, 8, 16)  # trainings in full
MOST_EXCESS = 2.0  # that counts in a mean


@dataclass(frozen=True)
class Course:
    """One study, from its first result to its end; an excess of 0.1 is a tenth above the table's best.

    Attributes:
        results: (trainings in full spent so far by all workers, the leader's excess when trained in full), by result.
        given: the excess of the default recipe; infinite if none was given.
    """

    results: tuple[tuple[float, float], ...]
    given: float

    @property
    def cost(self) -> float:
        """Trainings in full of the whole study."""
        return self.results[-1][0] if self.results else 0.0

    @property
    def end(self) -> float:
        """The excess at the study's end."""
        return self.results[-1][1] if self.results else math.inf

    def after(self, trainings: float) -> float:
        """The excess after so many trainings in full; infinite before the first result."""
        excess = math.inf
        for spent, leader in self.results:
            if spent > trainings:
                break
            excess = leader
        return excess


@dataclass(frozen=True)
class Question:
    """Studies of `trials` configurations by `workers`, perhaps with the table's default recipe given first."""

    trials: int
    workers: int
    is_given: bool

    def __str__(self) -> str:
        workers = f"{self.workers} worker{'s' if self.workers > 1 else ''}"
        given = ", default recipe given" if self.is_given else ""
        return f"a study of {self.trials}, {workers}{given}"


def questions(
    table: BenchmarkTable, trials: Sequence[int], workers: Sequence[int], given: Sequence[bool]
) -> list[Question]:
    """Every combination; with a default recipe only where the table has one."""
    asked = []
    for is_given in given:
        for count in workers:
            for total in trials:
                if table.default is not None or not is_given:
                    asked.append(Question(total, count, is_given))
    return asked


def courses(table: BenchmarkTable, method: Method, question: Question, seeds: Sequence[int]) -> list[Course]:
    """A study to its end with every seed."""
    prior: Mapping[str, Any] | None = table.default if question.is_given else None
    best = table.full_value(table.best)
    studies = []
    for seed in seeds:
        sized = replace(method, trials=question.trials)
        search = SimulatedSearch(table, sized, seed, question.workers, prior)
        search.run(frozenset(), once=True)
        results = [(seconds / table.training_seconds, value / best - 1.0) for seconds, value in search.course]
        given = math.inf
        if prior is not None:
            given = table.full_value(table.curves[search.taken[0]]) / best - 1.0
        studies.append(Course(tuple(results), given))
    return studies


def percentile_90(values: Sequence[float]) -> float:
    """The smallest value that nine in ten do not exceed."""
    return sorted(values)[math.ceil(0.9 * len(values)) - 1]


def lines(
    table: BenchmarkTable, methods: Sequence[Method], question: Question, seeds: Sequence[int]
) -> tuple[list[str], dict[str, list[Course]]]:
    """A line a method for one question, medians with 90th percentiles in brackets; and the studies by method.

    `mean`: of the ends, each cut off at MOST_EXCESS, as a median jumps where a table has few good curves. `worse`: how
    many studies end worse than the recipe that they were given.
    """
    heads = "".join(f"{f'after {point}':>15}" for point in POINTS)
    worse = f"{'worse':>8}" if question.is_given else ""
    text = [f"{question!s:44}{heads}{'at its end':>15}{'mean':>8}{'trainings':>13}{worse}"]
    by_method = {}
    for method in methods:
        studies = courses(table, method, question, seeds)
        by_method[method.name] = studies
        cells = [_cell([study.after(point) for study in studies]) for point in POINTS]
        cells.append(_cell([study.end for study in studies]))
        mean = _percent(statistics.fmean(min(study.end, MOST_EXCESS) for study in studies))
        costs = [study.cost for study in studies]
        cost = f"{statistics.median(costs):.1f} ({percentile_90(costs):.1f})"
        line = f"{method.name:44}{''.join(f'{cell:>15}' for cell in cells)}{mean:>8}{cost:>13}"
        if question.is_given:
            count = sum(study.end > study.given + 1e-9 for study in studies)
            line += f"{f'{count}/{len(studies)}':>8}"
        text.append(line)
    return text, by_method


def _cell(excesses: Sequence[float]) -> str:
    return f"{_percent(statistics.median(excesses))} ({_percent(percentile_90(excesses))})"


def _percent(excess: float) -> str:
    return f"{100 * excess:.1f}%" if math.isfinite(excess) else "-"


def plot(path: Path, title: str, by_method: Mapping[str, Sequence[Course]]) -> None:
    """A picture of the median excess by trainings spent, a line a method; the ending of `path` says which format."""
    from matplotlib.figure import Figure  # takes a second to import

    figure = Figure(figsize=(8.0, 4.5), layout="constrained")
    axes = figure.subplots()
    most = max((study.cost for studies in by_method.values() for study in studies), default=1.0)
    grid = [most * step / 200 for step in range(1, 201)]
    for name, studies in by_method.items():
        medians = [100 * statistics.median(study.after(trainings) for study in studies) for trainings in grid]
        axes.plot(
            grid, [value if math.isfinite(value) else math.nan for value in medians], label=name, drawstyle="steps"
        )
    axes.set(title=title, xlabel="trainings in full", ylabel="% above the table's best, median", ylim=(0, None))
    axes.legend(fontsize="small")
    figure.savefig(path)
