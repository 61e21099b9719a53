"""Ways of searching against each other on a recorded table: `python -m search.simulation TABLE`."""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from search.errors import RunError, UserError
from search.simulation import benchmark_table, simulator
from search.simulation.benchmark_table import BenchmarkTable
from search.simulation.simulator import Method
from search.space import encoding
from search.space.budget import SAMPLERS, Budget
from search.space.distributions import FloatRange
from search.storage.database import open_storage
from search.study import open_study

OURS = "tmsearch"
WRONG_BY = 30.0
WORKERS = (1, 2, 4, 8, 16, 32, 64)


def ours(sampler: str = SAMPLERS[0], name: str = OURS) -> Method:
    """What a space file that says nothing gets."""
    return Method(name, Budget.strategy, sampler, Budget.eta)


def peers(table: BenchmarkTable) -> list[Method]:
    """What people use instead; Optuna's reduction factors are its defaults."""
    ends = table.rungs[-1:]
    ways = [
        Method("random, in full", "none", "random"),
        Method("Optuna's default (TPE, MedianPruner)", "optuna-median", "tpe"),
        Method("TPE, Hyperband", "optuna-hyperband", "tpe", eta=3),
        Method("TPE, Optuna's halving", "optuna-halving", "tpe", eta=4),
    ]
    # Twenty at a time, the best four of them in full.
    for place, name in enumerate(("first", "second")[: len(table.rungs) - 1]):
        rungs = (table.rungs[place], *ends)
        if rungs[0] < rungs[1]:
            ways.append(Method(f"20 to the {name} rung, best 4 in full", "bracket", "random", 5, 20, rungs))
    return ways


def wrong_prior(table: BenchmarkTable, factor: float = WRONG_BY) -> Mapping[str, Any] | None:
    """The best configuration with its learning rate wrong by `factor`, to the side where there is more room.

    Of the table's curves the most alike among those within a factor of two of that rate.
    """
    rate, drawn = table.search.get("learning_rate"), table.best.drawn
    if not isinstance(rate, FloatRange):
        return None
    value = drawn["learning_rate"]
    wrong = value / factor if value / rate.low > rate.high / value else value * factor
    told = {**drawn, "learning_rate": min(max(wrong, rate.low), rate.high)}
    # The nearest curve over all knobs may be the best itself: it shares all the others.
    place = encoding.features(table.search, told)
    points = {index: encoding.features(table.search, one.drawn) for index, one in enumerate(table.curves)}
    rates = [one.drawn["learning_rate"] for one in table.curves]
    off = [abs(math.log(each / told["learning_rate"])) for each in rates]
    close = [index for index in points if off[index] <= max(math.log(2.0), min(off))]
    found = min(close, key=lambda index: float(((points[index] - place) ** 2).sum()))
    return table.curves[found].drawn


def report(table: BenchmarkTable, ways: Sequence[Method], seeds: Sequence[int], workers: int) -> list[str]:
    """A line a way: costs until a good one was trained in full, and the median's share of the first way's."""
    title = f"trainings until a good one, {workers} worker{'s' if workers > 1 else ''}"
    lines = [f"{title:44}{'median':>8}{'p90':>8}{'reached':>9}{'tmsearch is':>13}"]
    found = simulator.costs(table, simulator.simulate(table, ways, seeds, workers=workers))
    prior = wrong_prior(table)
    if prior is not None:
        misled = ours(name=f"{OURS}, first told a rate wrong by {WRONG_BY:g}")
        found |= simulator.costs(table, simulator.simulate(table, [misled], seeds, workers=workers, prior=prior))
    mine = found[OURS].median
    for name, cost in found.items():
        share = "" if name.startswith(OURS) else f"{mine / cost.median:.2f}"
        lines.append(f"{name:44}{cost.median:8.1f}{cost.percentile_90:8.1f}{cost.reached:>6}/{len(seeds)}{share:>13}")
    return lines


def _ends(table: BenchmarkTable, ways: Sequence[Method], seeds: Sequence[int], trials: int) -> list[str]:
    """A line a way: how far from the best a study of `trials` configurations ends, and what it costs."""
    lines = [f"{f'a study of {trials}, to its end':44}{'off the best':>14}{'p90':>8}{'trainings':>11}"]
    for way in ways:
        excess, spent = simulator.run_to_end(table, way, seeds, trials)
        ninth = sorted(excess)[int(0.9 * (len(excess) - 1))]
        lines.append(f"{way.name:44}{statistics.median(excess):>13.1%} {ninth:>7.1%}{statistics.median(spent):>11.1f}")
    return lines


def _scaling(table: BenchmarkTable, seeds: Sequence[int], trials: int) -> list[str]:
    """A line a number of workers: the time on the clock of a study to its end, against perfect scaling."""
    title = f"a study of {trials}, to its end"
    lines = [f"{title:30}{'on the clock':>14}{'perfect':>11}{'speed-up':>10}{'efficiency':>12}{'trained':>11}"]
    found = simulator.scaling(table, ours(), seeds, trials, WORKERS)
    for one in found:
        name = f"{one.workers} worker{'s' if one.workers > 1 else ''}"
        perfect = found[0].seconds / one.workers
        lines.append(
            f"{name:30}{one.seconds:>12.1f} s{perfect:>9.1f} s{one.speedup:>10.2f}{one.efficiency:>12.0%}"
            f"{one.cost:>9.0f} s"
        )
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("table", help="JSON lines in the form of search/tables.py; with --record, a study's name")
    parser.add_argument("--seeds", type=int, default=50, help="searches a way (50)")
    parser.add_argument("--workers", type=int, nargs="+", default=[1], help="workers of a search, such as 1 4 16 (1)")
    parser.add_argument("--trials", type=int, nargs="+", default=[], help="also studies of so many configurations")
    parser.add_argument("--samplers", action="store_true", help="compare samplers and strategies of ours, too")
    parser.add_argument("--record", metavar="URL", help="print the study's curves in this storage as a table instead")
    parser.add_argument("--scaling", action="store_true", help="instead: studies with 1 to 64 workers, in virtual time")
    said = parser.parse_args(arguments)
    try:
        if said.record:
            sys.stdout.write(benchmark_table.of_study(open_study(open_storage(said.record), said.table)))
            return 0
        table = benchmark_table.read(said.table)
    except (UserError, RunError) as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1
    good = simulator.good_curves(table)
    rungs = ", ".join(map(str, table.rungs))
    print(
        f"{said.table}: {len(table.curves)} curves, rungs {rungs}; best {table.full(table.best):.4f}, "
        f"good are {len(good)}; a training in full takes {table.training_seconds:.1f} s"
    )
    if said.scaling:
        for trials in said.trials or [len(table.curves)]:
            print("\n".join(_scaling(table, range(said.seeds), trials)), flush=True)
        return 0
    ways = [ours(), *peers(table)]
    if said.samplers:
        ways += [ours(sampler, f"{OURS}, {sampler}") for sampler in SAMPLERS[1:]]
        ways.append(Method(f"{OURS}, bracket", "bracket", SAMPLERS[0]))
        ways += [Method(f"{OURS}, eta {eta}", Budget.strategy, SAMPLERS[0], eta) for eta in (2, 3, 4)]
    for trials in said.trials:
        print("\n".join(_ends(table, ways, range(said.seeds), trials)), flush=True)
    for workers in said.workers:
        print("\n".join(report(table, ways, range(said.seeds), workers)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
