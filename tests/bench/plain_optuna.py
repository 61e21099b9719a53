"""GuidedSampler and PromotionPruner in plain Optuna, beside Optuna's own, on recorded curves.

    python tests/bench/plain_optuna.py studies/replay/tiny.jsonl studies/replay/demo.jsonl --seeds 20

A draw is answered by the recorded curve nearest to it, as often as it is asked for. Printed: how far above the table's
best the best complete trial ends, in percent (median, 90th percentile), and trainings in full that were spent.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import optuna
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import TrialState

from search.samplers.guided_sampler import GuidedSampler
from search.samplers.optuna_space import to_distributions
from search.schedulers.promotion_pruner import PromotionPruner
from search.simulation import benchmark_table
from search.simulation.benchmark_table import BenchmarkTable, Curve
from search.space import encoding

FAILED = 9.9  # the value of a training that gave none


def pruners(table: BenchmarkTable) -> dict[str, BasePruner]:
    """Optuna's with its defaults, except for the resources, which are the table's rungs."""
    return {
        "none": NopPruner(),
        "median": MedianPruner(),
        "Optuna's halving": SuccessiveHalvingPruner(min_resource=table.rungs[0], reduction_factor=4),
        "promotion": PromotionPruner(table.rungs),
        "promotion, eta 2": PromotionPruner(table.rungs, eta=2),
    }


def searched(table: BenchmarkTable, sampler: BaseSampler, pruner: BasePruner, trials: int) -> tuple[float, float]:
    """(excess of the best complete trial in percent, trainings in full) of one study."""
    distributions = to_distributions(table.search)
    points = np.stack([encoding.features(table.search, curve.drawn) for curve in table.curves])
    study = optuna.create_study(sampler=sampler, pruner=pruner)
    spent = 0.0
    for _ in range(trials):
        trial = study.ask(distributions)
        distances = ((points - encoding.features(table.search, trial.params)) ** 2).sum(1)
        spent += train(study, trial, table.curves[int(distances.argmin())], table.rungs[-1])
    values = [trial.value for trial in study.trials if trial.state == TrialState.COMPLETE]
    excess = min(values) / table.full_value(table.best) - 1.0 if values else math.inf
    return 100.0 * excess, spent


def train(study: optuna.Study, trial: optuna.Trial, curve: Curve, last_rung: int) -> float:
    """Report a recorded curve until it is pruned; the share of it that was trained."""
    value = FAILED
    reached = 0
    for rung in curve.rungs:
        value = rung.value if math.isfinite(rung.value) else FAILED
        reached = rung.step
        trial.report(value, reached)
        if reached < last_rung and trial.should_prune():
            study.tell(trial, state=TrialState.PRUNED)
            return reached / last_rung
    if reached < last_rung:
        study.tell(trial, state=TrialState.PRUNED)
    else:
        study.tell(trial, value)
    return reached / last_rung


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="+")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--trials", type=int, default=20)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    samplers = {"random": RandomSampler, "TPE": TPESampler, "GuidedSampler": GuidedSampler}
    for name in arguments.tables:
        table = benchmark_table.read(name)
        print(f"{table.study}: {arguments.trials} trials, {arguments.seeds} seeds")
        for sampler_name, sampler in samplers.items():
            for pruner_name in pruners(table):
                results = []
                for seed in range(arguments.seeds):
                    pruner = pruners(table)[pruner_name]
                    results.append(searched(table, sampler(seed=seed), pruner, arguments.trials))
                excess = [result[0] for result in results]
                spent = statistics.mean(result[1] for result in results)
                high = float(np.quantile(excess, 0.9))
                words = f"{sampler_name:14} {pruner_name:18}"
                print(f"{words} {statistics.median(excess):6.1f} ({high:6.1f}) for {spent:5.1f}", flush=True)


if __name__ == "__main__":
    main()
