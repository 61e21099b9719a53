"""What a study's results tell of its knobs, by Optuna: importances with their uncertainty, and slices."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.trial import FrozenTrial, TrialState, create_trial

from search.dashboard.publisher import FACTOR
from search.imported import without_imported
from search.optuna_logging import quiet_optuna
from search.records import Configuration
from search.samplers.optuna_space import can_hold_all, to_distributions
from search.space.search_space import Space

# PED-ANOVA compares where the best lie with where all lie. Its authors want five among the best; with fewer than twice
# as many beside them there is nothing to compare with.
TOP, TOP_SHARE = 5, 0.25
FEWEST = 15
RESAMPLES = 40  # of the trials, and as many shuffles of their results: 200 trials take 2 s
EVALUATOR = "PED-ANOVA (optuna.importance)"


@dataclass(frozen=True)
class ComparableResults:
    """The rung that most configurations have a value at, and those: (configuration, its value there)."""

    step: int
    where: str  # the rung in words
    results: tuple[tuple[Configuration, float], ...]


@dataclass(frozen=True)
class Importance:
    """A knob's share of all importances. `low` to `high`: 95 % over bootstrap resamples of the configurations.

    `chance`, on the same scale, is what 95 of 100 shuffles of the results stay below: no more than that may be nothing.
    """

    name: str
    share: float
    low: float
    high: float
    chance: float

    @property
    def above_chance(self) -> bool:
        return self.share > self.chance


@dataclass(frozen=True)
class Importances:
    """Of the knobs, the largest first; none, and `why`, where the configurations are too few to tell."""

    knobs: tuple[Importance, ...]
    configurations: int
    best: int  # how many count as the best
    where: str
    why: str = ""


def comparable_results(history: Sequence[Configuration]) -> ComparableResults | None:
    """The results that can be held against each other; None where there is none. Imported ones stay out."""
    seen = [one for one in without_imported(history) if one.failure is None]
    reached = {
        step: [(one, one.curve[step]) for one in seen if math.isfinite(one.curve.get(step, math.nan))]
        for step in sorted({step for one in seen for step in one.curve})
    }
    if not any(reached.values()):
        return None
    step = max(reached, key=lambda each: (len(reached[each]), each))
    return ComparableResults(step, f"step {step}", tuple(reached[step]))


def shown_name(space: Space, name: str) -> str:
    """A knob as the published study names it: a factor says that it is one."""
    return FACTOR.format(name) if getattr(space.search[name], "times", None) else name


def importances(space: Space, found: ComparableResults | None) -> Importances:
    """PED-ANOVA's, each with its spread over resamples and with what chance alone gives."""
    trials = _trials(space, found)
    where = found.where if found else ""
    if len(trials) < FEWEST or len(space.search) < 2:
        few = f"{len(trials)} configurations have comparable results, and fewer than {FEWEST} tell nothing"
        why = few if len(trials) < FEWEST else "only one knob is searched"
        return Importances((), len(trials), 0, where, why)
    share = max(TOP_SHARE, TOP / len(trials))
    best = math.ceil(share * len(trials))
    values = np.array([trial.values[0] for trial in trials])
    if len(set(values)) == 1:
        return Importances((), len(trials), best, where, "all results are equal")
    rng = np.random.default_rng(len(trials))
    names = list(trials[0].params)
    measured = _divergences(trials, values, names, share)
    total = float(measured.sum()) or 1.0
    resampled, shuffled = [], []
    for _ in range(RESAMPLES):
        drawn = rng.integers(len(trials), size=len(trials))
        one = _divergences([trials[place] for place in drawn], values[drawn], names, share)
        resampled.append(one / (one.sum() or 1.0))
        shuffled.append(_divergences(trials, rng.permutation(values), names, share) / total)
    # The normal interval: a resample holds trials twice, which shifts its divergences, and less so their spread.
    half = 1.96 * np.std(resampled, axis=0)
    chance = np.quantile(shuffled, 0.95, axis=0)
    knobs = [
        Importance(name, one, max(0.0, one - wide), min(1.0, one + wide), luck)
        for name, one, wide, luck in zip(
            names, (measured / total).tolist(), half.tolist(), chance.tolist(), strict=True
        )
    ]
    return Importances(tuple(sorted(knobs, key=lambda one: -one.share)), len(trials), best, where)


def slices(space: Space, found: ComparableResults | None, value: str) -> str | None:
    """optuna.visualization's slices through every searched knob, as plotly's JSON; None without two results.

    `value` is what the results are called.
    """
    from optuna.visualization import plot_slice

    trials = _trials(space, found)
    if len(trials) < 2:
        return None
    figure: dict[str, Any] = json.loads(plot_slice(_study(trials), target_name=value).to_json())
    figure["layout"].pop("template", None)
    return json.dumps(figure)


def _trials(space: Space, found: ComparableResults | None) -> list[FrozenTrial]:
    """The comparable results as complete trials; what was added by hand outside the ranges is left out."""
    known, trials = to_distributions(space.search), []
    for one, value in found.results if found else ():
        drawn = one.drawn or {}
        if not can_hold_all(known, drawn):
            continue
        params = {shown_name(space, name): drawn[name] for name in known}
        named: dict[str, BaseDistribution] = {shown_name(space, name): dist for name, dist in known.items()}
        trials.append(create_trial(state=TrialState.COMPLETE, value=value, params=params, distributions=named))
    return trials


def _study(trials: Sequence[FrozenTrial]) -> optuna.Study:
    with quiet_optuna():
        made = optuna.create_study(direction="minimize")
        made.add_trials(trials)
    return made


def _divergences(
    trials: Sequence[FrozenTrial], values: NDArray[np.float64], names: Sequence[str], share: float
) -> NDArray[np.float64]:
    """How far the best lie from all, knob by knob [names], with `values` [trials] in place of the trials' own."""
    told = [
        create_trial(value=float(value), params=trial.params, distributions=trial.distributions)
        for trial, value in zip(trials, values, strict=True)
    ]
    found = PedAnovaImportanceEvaluator(target_quantile=share).evaluate(_study(told))
    return np.array([found.get(name, 0.0) for name in names])
