"""The guided sampler for plain Optuna: optuna.create_study(sampler=GuidedSampler(seed=0))."""

from __future__ import annotations

import math
import secrets
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from optuna import Study
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.search_space import intersection_search_space
from optuna.trial import FrozenTrial, TrialState

from search.optuna_trials import sign, to_configuration
from search.records import Configuration
from search.samplers.optuna_space import can_hold, to_range
from search.samplers.sampler import draw


class GuidedSampler(BaseSampler):
    """Quasi-random draws, then Thompson sampling from a Gaussian process over the curves of all trials.

    It is what a space file calls `sampler: guided`: it learns from pruned trials by what they reported, expects of
    running ones what the model does, draws no values twice while the space has others, and takes the first enqueued
    trial for a recipe worth staying near. Knobs that some trials lack, or have other ranges in, are drawn at random,
    as are those of the first trial.

        study = optuna.create_study(sampler=GuidedSampler(seed=0), pruner=PromotionPruner(rungs=[100, 200, 400, 800]))
        study.optimize(objective, n_trials=20)

    Args:
        seed: Equal seeds give equal draws from equal trials. None: another one each time.
    """

    def __init__(self, seed: int | None = None) -> None:
        self._seed = secrets.randbits(32) if seed is None else seed
        self._independent = RandomSampler(self._seed)

    def reseed_rng(self) -> None:
        """Draw other values of knobs that are drawn alone; the others depend on the trial's number."""
        self._independent.reseed_rng()

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The knobs that every trial which ended has, with equal ranges; those of one value need no draw."""
        shared = intersection_search_space(study.get_trials(deepcopy=False), include_pruned=True)
        return {name: distribution for name, distribution in shared.items() if not distribution.single()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Values of all these knobs together.

        Raises:
            ValueError: the study has several objectives.
        """
        direction = sign(study, type(self).__name__)
        if not search_space:
            return {}
        others = [other for other in study.get_trials(deepcopy=False) if other.number != trial.number]
        history, last_rung = _history(others, direction, search_space)
        search = {name: to_range(distribution) for name, distribution in search_space.items()}
        drawn = draw(search, history, seed=self._seed, number=trial.number, last_rung=last_rung, sampler="guided")
        return {name: _from_drawn(search_space[name], value) for name, value in drawn.items()}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A random value of one knob.

        Raises:
            ValueError: the study has several objectives.
        """
        sign(study, type(self).__name__)
        return self._independent.sample_independent(study, trial, param_name, param_distribution)


def _from_drawn(distribution: BaseDistribution, value: Any) -> Any:
    """A choice is drawn by its index: Optuna's choices may be of any kind."""
    return distribution.choices[value] if isinstance(distribution, CategoricalDistribution) else value


def _to_drawn(distribution: BaseDistribution, value: Any) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return int(distribution.to_internal_repr(value))
    return value


def _history(
    trials: Sequence[FrozenTrial], direction: float, search_space: Mapping[str, BaseDistribution]
) -> tuple[list[Configuration], int]:
    """The trials that have values of all knobs, and the step at which a trial is complete."""
    last_rung = max((step + 1 for trial in trials for step in trial.intermediate_values), default=1)
    comparable = []
    for trial in trials:
        if all(name in trial.params and can_hold(each, trial.params[name]) for name, each in search_space.items()):
            comparable.append(trial)
    curves = [_curve(trial, direction, last_rung) for trial in comparable]
    # A curve is extrapolated from where it ended: other steps tell nothing, and there may be thousands.
    ends = {max(curve) for curve in curves if curve} | {last_rung}
    scaled = _scaled([{step: value for step, value in curve.items() if step in ends} for curve in curves])
    history = []
    for trial, curve in zip(comparable, scaled, strict=True):
        drawn = {name: _to_drawn(distribution, trial.params[name]) for name, distribution in search_space.items()}
        history.append(to_configuration(trial, curve, drawn))
    return history, last_rung


def _curve(trial: FrozenTrial, direction: float, last_rung: int) -> dict[int, float]:
    """The trial's values by step, counted from 1, lower is better; that of a complete one is at the last rung."""
    curve = {step + 1: direction * value for step, value in trial.intermediate_values.items()}
    if trial.state == TrialState.COMPLETE and trial.value is not None:
        curve[last_rung] = direction * trial.value
    return curve


def _scaled(curves: Sequence[Mapping[int, float]]) -> list[dict[int, float]]:
    """The values as the model takes them: it reads their logarithms, up to three times the best.

    The best becomes 1, the median 2, so that what a study measures in, and from where, changes nothing.
    """
    finite = [value for curve in curves for value in curve.values() if math.isfinite(value)]
    if not finite:
        return [dict(curve) for curve in curves]
    best = min(finite)
    width = statistics.median(finite) - best or max(finite) - best or 1.0
    return [{step: 1.0 + (value - best) / width for step, value in curve.items()} for curve in curves]
