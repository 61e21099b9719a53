"""(history, seed, number) -> parameters: an Optuna sampler over an in-memory study built from the ledger."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from search import imported
from search.optuna_logging import quiet_optuna
from search.records import BAD_PARAMETERS, Configuration
from search.samplers import gp, halton
from search.space import budget, encoding
from search.space.distributions import Choice, FloatRange, IntRange, Range

GUIDED_FROM = 8
MEMORY = "memory"  # the constraint that a configuration breaks which runs out of memory


def distribution(one: Range) -> BaseDistribution:
    """Optuna's word for a range of the space."""
    if isinstance(one, FloatRange):
        return FloatDistribution(one.low, one.high, log=one.log, step=one.step)
    if isinstance(one, IntRange):
        return IntDistribution(one.low, one.high, log=one.log, step=one.step or 1)
    assert isinstance(one, Choice)
    return CategoricalDistribution(one.values)


def distributions(search: Mapping[str, Range]) -> dict[str, BaseDistribution]:
    """By name, in the order of names: the order must not change what a seed draws."""
    return {name: distribution(search[name]) for name in sorted(search)}


def holds(dist: BaseDistribution, value: Any) -> bool:
    """Whether Optuna can hold `value`: one added by hand may lie outside the range, and then it cannot."""
    try:
        return bool(dist._contains(dist.to_internal_repr(value)))
    except (ValueError, TypeError):
        return False


def _seed(seed: int, number: int) -> int:
    """One independent stream a configuration (32 bits, what numpy's generators take)."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{number}".encode()).digest()[:4], "big")


def _worst(history: Sequence[Configuration]) -> float:
    values = [rung.value for one in history for rung in one.rungs if math.isfinite(rung.value)]
    return max(values, default=1.0)


def known_trial(
    one: Configuration, space: Mapping[str, BaseDistribution], worst: float, last_rung: int
) -> FrozenTrial | None:
    """What the sampler is told of a configuration; None where it tells nothing yet.

    A paused one stands with the curve that it has: told as RUNNING, Optuna 5's TPE would count it as bad. One
    whose parameters made it fail (diverged, out of memory) stands with the worst value seen, since TPE never
    reads FAIL.
    """
    if one.drawn is None or set(one.drawn) != set(space):
        return None
    if not all(holds(space[name], value) for name, value in one.drawn.items()):
        return None
    params, curve = dict(one.drawn), one.curve
    if one.failure in BAD_PARAMETERS:
        bad = create_trial(
            state=TrialState.PRUNED,
            params=params,
            distributions=dict(space),
            intermediate_values={one.steps or 1: worst},
        )
        if one.failure == "oom":
            bad.set_constraint(MEMORY, 1.0)
        return bad
    if one.failure is not None or not curve:
        return None
    if one.steps >= last_rung:
        return create_trial(
            state=TrialState.COMPLETE,
            value=one.value,
            params=params,
            distributions=dict(space),
            intermediate_values=curve,
        )
    return create_trial(state=TrialState.PRUNED, params=params, distributions=dict(space), intermediate_values=curve)


def draw(
    search: Mapping[str, Range],
    history: Sequence[Configuration],
    *,
    seed: int,
    number: int,
    last_rung: int,
    sampler: str = budget.SAMPLERS[0],
    given: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Values for every searched knob of configuration `number`; `given` ones are kept as they are.

    A pure function: the same arguments give the same values, in any process.
    """
    if not search:
        return {}
    history = imported.rescale_imported(history)
    return {**SAMPLERS[sampler](search, history, seed, number, last_rung, given or {}), **(given or {})}


def _random(
    search: Mapping[str, Range], history: Sequence[Configuration], seed: int, number: int, last_rung: int, given: Given
) -> dict[str, Any]:
    return encoding.drawn(search, np.random.default_rng(_seed(seed, number)).random(len(search)))


def _quasi_random(
    search: Mapping[str, Range], history: Sequence[Configuration], seed: int, number: int, last_rung: int, given: Given
) -> dict[str, Any]:
    """Point `number` of the seed's own scrambled Halton sequence."""
    return encoding.drawn(search, halton.point(len(search), number, _seed(seed, -1)))


def _guided(
    search: Mapping[str, Range], history: Sequence[Configuration], seed: int, number: int, last_rung: int, given: Given
) -> dict[str, Any]:
    """Quasi-random ones first; from then on a Gaussian process says where."""
    inside = [one for one in history if one.drawn is None or _inside(search, one.drawn)]
    found = None
    if number >= GUIDED_FROM:
        found = gp.draw(search, inside, last_rung, np.random.default_rng(_seed(seed, number)))
    return found or _quasi_random(search, history, seed, number, last_rung, given)


def _inside(search: Mapping[str, Range], drawn: Mapping[str, Any]) -> bool:
    """Whether the ranges can give it: one added by hand may lie outside."""
    space = distributions(search)
    return set(drawn) == set(space) and all(holds(space[name], value) for name, value in drawn.items())


def _tpe(
    search: Mapping[str, Range], history: Sequence[Configuration], seed: int, number: int, last_rung: int, given: Given
) -> dict[str, Any]:
    """Optuna's tree-structured Parzen estimator, with its defaults."""
    space = distributions(search)
    sampler = optuna.samplers.TPESampler(seed=_seed(seed, number))
    with quiet_optuna():
        study = optuna.create_study(sampler=sampler, direction="minimize")
    worst = _worst(history)
    told = (known_trial(one, space, worst, last_rung) for one in history)
    study.add_trials([trial for trial in told if trial is not None])
    if given:
        study.enqueue_trial(dict(given))
    with quiet_optuna():
        trial = study.ask(dict(space))
    return {name: trial.params[name] for name in space}


Given = Mapping[str, Any]
Sampler = Callable[[Mapping[str, Range], Sequence[Configuration], int, int, int, Given], dict[str, Any]]
SAMPLERS: dict[str, Sampler] = {"random": _random, "quasi-random": _quasi_random, "tpe": _tpe, "guided": _guided}
