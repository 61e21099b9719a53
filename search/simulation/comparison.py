"""Search methods compared on a recorded table, as lines of text: what each costs, and how it scales."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from search.schedulers.scheduler import AUTO
from search.simulation import simulator
from search.simulation.benchmark_table import BenchmarkTable
from search.simulation.simulator import Method
from search.space import encoding
from search.space.budget import SAMPLERS, Budget
from search.space.distributions import FloatRange

OWN_NAME = "tmsearch"
WRONG_BY = 30.0
WORKERS = (1, 2, 4, 8, 16, 32, 64)


def own_method(sampler: str = SAMPLERS[0], name: str = OWN_NAME) -> Method:
    """The method of a space file that leaves the choice to the program."""
    return Method(name, Budget.strategy, sampler, Budget.eta, spend=AUTO)


def own_variants() -> list[Method]:
    """Other samplers and schedulers of the program."""
    return [
        *(own_method(sampler, f"{OWN_NAME}, {sampler}") for sampler in SAMPLERS[1:]),
        Method(f"{OWN_NAME}, bracket", "bracket", SAMPLERS[0]),
        *(Method(f"{OWN_NAME}, eta {eta}", Budget.strategy, SAMPLERS[0], eta) for eta in (2, 3, 4)),
    ]


def baseline_methods(table: BenchmarkTable) -> list[Method]:
    """What people use instead; Optuna's reduction factors are its defaults."""
    methods = [
        Method("random, in full", "none", "random"),
        Method("Optuna's default (TPE, MedianPruner)", "optuna-median", "tpe"),
        Method("TPE, Hyperband", "optuna-hyperband", "tpe", eta=3),
        Method("TPE, Optuna's halving", "optuna-halving", "tpe", eta=4),
    ]
    # Twenty at a time, the best four of them in full.
    last_rung = table.rungs[-1]
    for rung, name in zip(table.rungs[:-1], ("first", "second"), strict=False):
        if rung < last_rung:
            methods.append(
                Method(f"20 to the {name} rung, best 4 in full", "bracket", "random", 5, 20, (rung, last_rung))
            )
    return methods


def wrong_prior(table: BenchmarkTable, factor: float = WRONG_BY) -> Mapping[str, Any] | None:
    """The best configuration with its learning rate wrong by `factor`, on the side where the range has more room.

    As a curve of the table: of those within a factor of two of that rate, the most similar. None without such a knob.
    """
    rates = table.search.get("learning_rate")
    if not isinstance(rates, FloatRange):
        return None
    best_rate = table.best.drawn["learning_rate"]
    wrong_rate = best_rate / factor if best_rate / rates.low > rates.high / best_rate else best_rate * factor
    wrong_rate = min(max(wrong_rate, rates.low), rates.high)
    # The most similar curve over all knobs may be the best itself: it shares all the others.
    distances = [abs(math.log(curve.drawn["learning_rate"] / wrong_rate)) for curve in table.curves]
    close = max(math.log(2.0), min(distances))
    point = encoding.features(table.search, {**table.best.drawn, "learning_rate": wrong_rate})
    candidates = [curve for curve, distance in zip(table.curves, distances, strict=True) if distance <= close]
    nearest = min(
        candidates, key=lambda curve: float(((encoding.features(table.search, curve.drawn) - point) ** 2).sum())
    )
    return nearest.drawn


def cost_lines(table: BenchmarkTable, methods: Sequence[Method], seeds: Sequence[int], workers: int) -> list[str]:
    """A line a method: the cost until a good curve was trained in full, and what share of its median ours takes."""
    title = f"trainings until a good one, {workers} worker{'s' if workers > 1 else ''}"
    lines = [f"{title:44}{'median':>8}{'p90':>8}{'reached':>9}{'tmsearch is':>13}"]
    summaries = simulator.costs(table, simulator.simulate(table, methods, seeds, workers=workers))
    prior = wrong_prior(table)
    if prior is not None:
        misled = own_method(name=f"{OWN_NAME}, first told a rate wrong by {WRONG_BY:g}")
        results = simulator.simulate(table, [misled], seeds, workers=workers, prior=prior)
        summaries |= simulator.costs(table, results)
    own_median = summaries[OWN_NAME].median
    for name, cost in summaries.items():
        share = "" if name.startswith(OWN_NAME) else f"{own_median / cost.median:.2f}"
        lines.append(f"{name:44}{cost.median:8.1f}{cost.percentile_90:8.1f}{cost.reached:>6}/{len(seeds)}{share:>13}")
    return lines


def scaling_lines(table: BenchmarkTable, seeds: Sequence[int], trials: int) -> list[str]:
    """A line a number of workers: the time on the clock of a study to its end, against perfect scaling."""
    title = f"a study of {trials}, to its end"
    lines = [f"{title:30}{'on the clock':>14}{'perfect':>11}{'speed-up':>10}{'efficiency':>12}{'trained':>11}"]
    points = simulator.scaling(table, own_method(), seeds, trials, WORKERS)
    for point in points:
        name = f"{point.workers} worker{'s' if point.workers > 1 else ''}"
        perfect = points[0].seconds / point.workers
        lines.append(
            f"{name:30}{point.seconds:>12.1f} s{perfect:>9.1f} s{point.speedup:>10.2f}{point.efficiency:>12.0%}"
            f"{point.cost:>9.0f} s"
        )
    return lines
