"""Samplers that people use instead, in the same replay: Optuna's others, and PriorBand's way of drawing.

Optuna's CMA-ES needs the package `cmaes` (the extra `peers`); its method is left out where that is not installed.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler
from optuna.trial import TrialState, create_trial

from search.optuna_logging import quiet_optuna
from search.records import Configuration, best_configuration
from search.samplers.optuna_space import to_distributions
from search.samplers.sampler import derived_seed, frozen_trial, worst_value
from search.simulation.simulator import Draw, Method
from search.space import encoding
from search.space.distributions import Range

_ETA = 3  # PriorBand's, as Hyperband's
_PRIOR_SPREAD = 0.25  # standard deviation around the prior's and the incumbent's values, of a knob's range
_MOVED = 0.5  # share of the incumbent's knobs that a draw moves


def methods() -> list[Method]:
    """Optuna's other samplers with its default pruner, and PriorBand."""
    listed = [
        Method("multivariate TPE, constant liar, median", "optuna-median", "tpe-multivariate", draw=_optuna(_tpe)),
        Method("GPSampler, MedianPruner", "optuna-median", "gp", draw=_optuna(_gp)),
    ]
    if importlib.util.find_spec("cmaes") is not None:
        listed.append(Method("CMA-ES, MedianPruner", "optuna-median", "cma-es", draw=_optuna(_cma)))
    listed.append(Method("PriorBand", "optuna-hyperband", "priorband", eta=_ETA, draw=prior_band))
    return listed


def _tpe(seed: int) -> BaseSampler:
    return optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)


def _gp(seed: int) -> BaseSampler:
    return optuna.samplers.GPSampler(seed=seed)


def _cma(seed: int) -> BaseSampler:
    return optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)


def _optuna(make: Callable[[int], BaseSampler]) -> Draw:
    """A draw by an Optuna sampler that is told the whole history anew."""

    def draw(
        search: Mapping[str, Range], history: Sequence[Configuration], seed: int, number: int, last_rung: int
    ) -> dict[str, Any]:
        distributions = to_distributions(search)
        with quiet_optuna():
            study = optuna.create_study(sampler=make(derived_seed(seed, number)), direction="minimize")
        worst = worst_value(history)
        for trial in history:
            frozen = frozen_trial(trial, distributions, worst, last_rung)
            if frozen is None and trial.drawn is not None and trial.failure is None:  # for the constant liar
                params = dict(trial.drawn)
                frozen = create_trial(state=TrialState.RUNNING, params=params, distributions=dict(distributions))
            if frozen is not None:
                study.add_trial(frozen)
        with quiet_optuna():
            asked_trial = study.ask(dict(distributions))
        return {name: asked_trial.params[name] for name in distributions}

    return draw


def prior_band(
    search: Mapping[str, Range], history: Sequence[Configuration], seed: int, number: int, last_rung: int
) -> dict[str, Any]:
    """PriorBand (Mallik et al., arXiv:2306.12370): at random, around the prior, or around the incumbent.

    The prior is what was given first. Their shares are those of the lowest rung: one in 1 + eta at random; of the
    others the incumbent gets half once something was trained in full. What is simplified: the shares do not change
    with the bracket, and incumbent and prior are not weighed by the likelihood of the best configurations.
    """
    random = np.random.default_rng(derived_seed(seed, number))
    uniform = encoding.from_unit_cube(search, random.random(len(search)))
    start = next((trial for trial in history if trial.origin == "start" and trial.drawn), None)
    if start is None or random.random() < 1.0 / (1.0 + _ETA):
        return uniform
    leader = best_configuration(tuple(history))
    center = start
    is_moved = np.ones(len(search), dtype=bool)
    if leader is not None and leader.steps >= last_rung and random.random() < 0.5:
        center = leader
        is_moved = random.random(len(search)) < _MOVED
    return encoding.moved(search, center.drawn or {}, _PRIOR_SPREAD * is_moved, random)
