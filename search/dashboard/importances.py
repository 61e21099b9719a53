"""Which knobs matter: Optuna's PED-ANOVA importances with their uncertainty, and slices.

PED-ANOVA: Watanabe et al., 2023, arXiv 2304.10255.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import CategoricalDistribution
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from search.dashboard.frozen_trial import published_name
from search.imported import without_imported
from search.records import Configuration
from search.samplers.optuna_space import can_hold_all, to_distributions
from search.space.search_space import Space

# PED-ANOVA compares where the best lie with where all lie. Its authors want five among the best; with fewer than twice
# as many beside them there is nothing to compare with.
TOP = 5
TOP_SHARE = 0.25
FEWEST = 15  # configurations
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
    """A knob's share of all importances; `low` to `high` is its 95 % interval over resamples of the configurations.

    `chance`, on the same scale, is what 95 of 100 shuffles of the results stay below.
    """

    name: str
    share: float
    low: float
    high: float
    chance: float

    @property
    def above_chance(self) -> bool:
        """Whether the share is more than what chance alone gives."""
        return self.share > self.chance


@dataclass(frozen=True)
class Slice:
    """Results by one knob as (drawn value, result); `choices` of a knob that is no number."""

    name: str
    is_log: bool
    choices: tuple[Any, ...] | None
    points: tuple[tuple[Any, float], ...]


@dataclass(frozen=True)
class Importances:
    """The knobs' importances, the largest first; none, and `why`, if the configurations are too few to tell."""

    knobs: tuple[Importance, ...]
    configurations: int
    best: int  # how many of them count as the best
    where: str
    why: str = ""


def comparable_results(history: Sequence[Configuration]) -> ComparableResults | None:
    """The results at the rung that most configurations reached; None if there are none.

    Imported configurations and failed ones are left out.
    """
    results_at: dict[int, list[tuple[Configuration, float]]] = {}
    for configuration in without_imported(history):
        if configuration.failure is not None:
            continue
        for step, value in configuration.curve.items():
            if math.isfinite(value):
                results_at.setdefault(step, []).append((configuration, value))
    if not results_at:
        return None
    step = max(results_at, key=lambda step: (len(results_at[step]), step))
    return ComparableResults(step, f"step {step}", tuple(results_at[step]))


def importances(space: Space, comparable: ComparableResults | None) -> Importances:
    """PED-ANOVA's importances, each with its spread over resamples and with what chance alone gives."""
    trials = _trials(space, comparable)
    where = comparable.where if comparable else ""
    if len(trials) < FEWEST:
        why = f"{len(trials)} configurations have comparable results, and fewer than {FEWEST} tell nothing"
        return Importances((), len(trials), 0, where, why)
    if len(space.search) < 2:
        return Importances((), len(trials), 0, where, "only one knob is searched")
    top_share = max(TOP_SHARE, TOP / len(trials))
    best = math.ceil(top_share * len(trials))
    values = np.array([trial.values[0] for trial in trials])  # [trials]
    if len(set(values)) == 1:
        return Importances((), len(trials), best, where, "all results are equal")
    names = list(trials[0].params)
    divergences = _divergences(trials, values, names, top_share)  # [knobs]
    total = float(divergences.sum()) or 1.0
    shares = divergences / total
    half_widths, chances = _spread(trials, values, names, top_share, total)
    knobs = []
    for name, share, half_width, chance in zip(
        names, shares.tolist(), half_widths.tolist(), chances.tolist(), strict=True
    ):
        low = max(0.0, share - half_width)
        high = min(1.0, share + half_width)
        knobs.append(Importance(name, share, low, high, chance))
    knobs.sort(key=lambda knob: -knob.share)
    return Importances(tuple(knobs), len(trials), best, where)


def _spread(
    trials: Sequence[FrozenTrial], values: NDArray[np.float64], names: Sequence[str], top_share: float, total: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Half of each share's 95 % interval, and the share that 95 of 100 shuffles of the results stay below [knobs]."""
    rng = np.random.default_rng(len(trials))
    resampled = []
    shuffled = []
    for _ in range(RESAMPLES):
        indices = rng.integers(len(trials), size=len(trials))  # [trials]
        sample = [trials[index] for index in indices]
        divergences = _divergences(sample, values[indices], names, top_share)  # [knobs]
        resampled.append(divergences / (divergences.sum() or 1.0))
        shuffled.append(_divergences(trials, rng.permutation(values), names, top_share) / total)
    # The normal interval: a resample has some trials twice, which shifts its divergences, and less so their spread.
    return 1.96 * np.std(resampled, axis=0), np.quantile(shuffled, 0.95, axis=0)


def slices(space: Space, comparable: ComparableResults | None) -> tuple[Slice, ...]:
    """The results by every searched knob; none without two results.

    optuna.visualization draws the same, and imports matplotlib's pyplot for it: 35 MB and a second.
    """
    trials = _trials(space, comparable)
    if len(trials) < 2:
        return ()
    drawn = []
    for name, distribution in trials[0].distributions.items():
        choices = distribution.choices if isinstance(distribution, CategoricalDistribution) else None
        is_log = bool(getattr(distribution, "log", False))
        drawn.append(Slice(name, is_log, choices, tuple((trial.params[name], trial.values[0]) for trial in trials)))
    return tuple(drawn)


def _trials(space: Space, comparable: ComparableResults | None) -> list[FrozenTrial]:
    """The comparable results as complete trials; what was added by hand outside the ranges is left out."""
    if comparable is None:
        return []
    ranges = to_distributions(space.search)
    published_ranges = {published_name(space, name): distribution for name, distribution in ranges.items()}
    trials = []
    for configuration, value in comparable.results:
        drawn = configuration.drawn or {}
        if not can_hold_all(ranges, drawn):
            continue
        params = {published_name(space, name): drawn[name] for name in ranges}
        trials.append(
            create_trial(state=TrialState.COMPLETE, value=value, params=params, distributions=published_ranges)
        )
    return trials


def _divergences(
    trials: Sequence[FrozenTrial], values: NDArray[np.float64], names: Sequence[str], top_share: float
) -> NDArray[np.float64]:
    """How far the best lie from all, by knob [knobs], with `values` [trials] in place of the trials' own."""
    revalued = []
    for number, (trial, value) in enumerate(zip(trials, values.tolist(), strict=True)):
        revalued_trial = copy.copy(trial)
        revalued_trial.value = value
        revalued_trial.number = number
        revalued_trial._trial_id = number
        revalued.append(revalued_trial)
    by_name = PedAnovaImportanceEvaluator(target_quantile=top_share).evaluate(_TrialsAsStudy(revalued))
    return np.array([by_name.get(name, 0.0) for name in names])


class _TrialsAsStudy(optuna.Study):
    """What an importance evaluator reads of a study, without a storage.

    A storage copies every trial whole, 81 times for one report: of 2,000 trials that took half of its time.
    """

    def __init__(self, trials: list[FrozenTrial]) -> None:
        self._trials = trials  # all of them complete

    @property
    def directions(self) -> list[StudyDirection]:
        return [StudyDirection.MINIMIZE]

    def get_trials(self, deepcopy: bool = True, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
        return self._trials
