"""Tables unlike ours: whatever the curves are like, a search gets there before the table is used up, and repeats."""

import math

import numpy as np
import pytest

from search.records import Rung
from search.simulation import comparison, simulator
from search.simulation.benchmark_table import BenchmarkTable, Curve
from search.simulation.simulator import SimulatedSearch
from search.space.distributions import Choice, FloatRange, IntRange

SPACE = {
    "learning_rate": FloatRange(1e-6, 1e-2, log=True),
    "dropout": FloatRange(0.0, 0.3),
    "warmup_steps": IntRange(0, 20, step=4),
    "freeze": Choice((True, False)),
}
# Relative noise of a value at the end and, beyond that, at the first rung; spread of the curves' speed; the share of
# high rates that fail on the way.
FAMILIES = {
    "smooth": (0.01, 0.02, 0.0, 0.0),
    "early rungs say nothing": (0.03, 1.0, 0.0, 0.0),
    "late starters win": (0.02, 0.05, 1.0, 0.0),
    "curves that end early": (0.02, 0.05, 0.0, 0.6),
    "one rung": (0.02, 0.0, 0.0, 0.0),
    "two rungs": (0.02, 0.1, 0.0, 0.0),
}


def family(name, seed=0, count=48):
    noise, early, spread, failing = FAMILIES[name]
    rungs = {"one rung": (80,), "two rungs": (20, 80)}.get(name, (10, 20, 40, 80))
    random = np.random.default_rng(seed)
    curves = []
    for _ in range(count):
        position, dropout = random.random(), 0.3 * random.random()
        drawn = {
            "learning_rate": 10 ** (4 * position - 6),
            "dropout": dropout,
            "warmup_steps": int(4 * random.integers(6)),
            "freeze": bool(random.integers(2)),
        }
        end = 0.2 + 1.6 * abs(position - 0.45) ** 1.5 + 0.3 * dropout + 0.05 * drawn["freeze"] * (1 + position)
        end *= math.exp(noise * random.standard_normal())
        speed = 3.0 * math.exp(spread * (random.random() - 0.5))
        fails = position > 0.6 and random.random() < failing
        recorded = []
        for step in rungs[: int(random.integers(len(rungs))) if fails else None]:
            progress = step / rungs[-1]
            value = end + (1.0 - end) * max(0.0, math.exp(-speed * progress) - math.exp(-speed))
            value *= math.exp(early * (1.0 - progress) * random.standard_normal())
            before = recorded[-1].step if recorded else 0
            recorded.append(Rung(step, value, {"train_seconds": (step - before) * (0.7 if drawn["freeze"] else 1.0)}))
        curves.append(Curve(drawn, 0, tuple(recorded)))
    return BenchmarkTable(name, rungs, SPACE, tuple(curves))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("workers", [1, 16])
def test_every_search_gets_there_and_repeats(name, workers):
    for seed in range(2):
        table = family(name, seed)
        result = SimulatedSearch(table, comparison.own_method(), seed, workers).run(simulator.good_curves(table))
        assert result.reached
        if seed == 0:
            again = SimulatedSearch(table, comparison.own_method(), seed, workers)
            assert again.run(simulator.good_curves(table)) == result
        all_seconds = math.fsum(rung.metrics["train_seconds"] for curve in table.curves for rung in curve.rungs)
        assert result.cost <= all_seconds + 1e-6


def share(name, seeds=16):
    """What ours costs of random search's until within a tenth of the best: a single best curve is a matter of luck."""
    logarithms = []
    for seed in range(seeds):
        table = family(name, seed)
        methods = [comparison.own_method(), comparison.baseline_methods(table)[0]]
        own, random_search = simulator.simulate(table, methods, [seed], within=0.1)
        logarithms.append(math.log(own.cost / random_search.cost))
    return math.exp(np.mean(logarithms))


def test_better_than_random_unless_early_rungs_say_nothing():
    judged = ("smooth", "late starters win", "curves that end early", "early rungs say nothing")
    shares = {name: share(name) for name in judged}
    blind = shares.pop("early rungs say nothing")
    assert all(cost < 1.0 for cost in shares.values()), shares
    # Judging early cannot pay where nothing is seen early.
    assert blind < 2.0, shares


def test_a_wrong_prior_is_wrong_on_the_table():
    table = family("smooth")
    prior = comparison.wrong_prior(table)
    factor = prior["learning_rate"] / table.best.drawn["learning_rate"]
    assert 10 <= max(factor, 1 / factor) <= 100
    assert SimulatedSearch(table, comparison.own_method(), 0, 1, prior)._nearest(prior) not in simulator.good_curves(
        table
    )
