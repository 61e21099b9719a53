"""(history, seed, number) -> parameters: the samplers of the space file, each a pure function.

Guided draws come from gp.py; TPE is Optuna's, over an in-memory study built from the ledger.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from search.imported import rescale_imported
from search.optuna_logging import quiet_optuna
from search.records import BAD_PARAMETERS, Configuration
from search.samplers import gp, repeats
from search.samplers.knowledge import Knowledge
from search.samplers.optuna_space import MEMORY_CONSTRAINT, can_hold_all, to_distributions
from search.space import budget, encoding
from search.space.distributions import Range

GUIDED_FROM = 8  # trials; before them the guided sampler draws quasi-random ones
GUIDED_FROM_GIVEN = 4  # likewise where a recipe was given first, and every other of those before lies near it
# Standard deviation of such draws, in parts of each range: PriorBand's (Mallik et al., arXiv:2306.12370). Of the ways
# that were tried it does best over four recorded tables (studies/README.md, 2026-11-30).
NEAR_GIVEN = 0.25
# Numbers of the trials that try the best of earlier studies, without and with a recipe given.
EARLIER_BEST = {False: (0, 2), True: (4, 6)}
_FLOAT_BITS = 54  # how many bits of a point's coordinate are told apart


@dataclass(frozen=True)
class _Request:
    """What one draw depends on."""

    search: Mapping[str, Range]
    history: Sequence[Configuration]
    seed: int
    number: int
    last_rung: int
    given: Mapping[str, Any]
    is_taken: repeats.IsTaken
    knowledge: Knowledge | None

    @property
    def trial_seed(self) -> int:
        """An independent seed for each trial."""
        return derived_seed(self.seed, self.number)

    def is_repeat(self, drawn: Mapping[str, Any]) -> bool:
        """Whether the study has a trial of these values, those that are given in their places."""
        return self.is_taken({**drawn, **self.given})


def draw(
    search: Mapping[str, Range],
    history: Sequence[Configuration],
    *,
    seed: int,
    number: int,
    last_rung: int,
    sampler: str = budget.SAMPLERS[0],
    given: Mapping[str, Any] | None = None,
    taken: Sequence[Configuration] | None = None,
    knowledge: Knowledge | None = None,
) -> dict[str, Any]:
    """Values for every searched knob of a new trial; equal arguments give equal values in any process.

    They are not those of a trial that the study has, unless the space is used up or all of them are given.

    Args:
        search: the ranges to draw from, by knob.
        history: the trials that the draw may learn from, imported ones among them.
        seed: the study's seed.
        number: the trial's number.
        last_rung: the step at which a training is complete.
        sampler: one of budget.SAMPLERS.
        given: values that are fixed for this trial; they are returned as they are.
        taken: the trials that the draw must not repeat; None: those of the history.
        knowledge: what earlier studies know, which the guided sampler uses; None: nothing.
    """
    if not search:
        return {}
    fixed = given or {}
    is_taken = repeats.taken_by(history if taken is None else taken)
    request = _Request(search, rescale_imported(history), seed, number, last_rung, fixed, is_taken, knowledge)
    drawn = {**SAMPLERS[sampler](request), **fixed}
    if set(fixed) == set(search) or not request.is_taken(drawn):
        return drawn
    return repeats.unused(search, fixed, request.is_taken, request.trial_seed) or drawn


def derived_seed(seed: int, number: int) -> int:
    """32 bits, which is what numpy's generators take."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{number}".encode()).digest()[:4], "big")


def _random(request: _Request) -> dict[str, Any]:
    coordinates = np.random.default_rng(request.trial_seed).random(len(request.search))
    return encoding.from_unit_cube(request.search, coordinates)


def _quasi_random(request: _Request) -> dict[str, Any]:
    """Point `number` of the seed's own scrambled Halton sequence."""
    coordinates = halton_point(len(request.search), request.number, derived_seed(request.seed, -1))
    return encoding.from_unit_cube(request.search, coordinates)


def _given_recipe(request: _Request) -> Mapping[str, Any] | None:
    """The values of the first `start` entry; None where none was given, or one of other knobs."""
    for trial in request.history:
        if trial.origin == "start" and trial.drawn is not None:
            return trial.drawn if set(trial.drawn) == set(request.search) else None
    return None


def _near(request: _Request, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A draw around a recipe."""
    random = np.random.default_rng(request.trial_seed)
    return encoding.moved(request.search, recipe, NEAR_GIVEN, random)


def _from_earlier(request: _Request, is_given: bool) -> dict[str, Any] | None:
    """The best of earlier studies, at the numbers that are theirs; None elsewhere, and where it was tried already."""
    if request.knowledge is None or request.number not in EARLIER_BEST[is_given]:
        return None
    rank = EARLIER_BEST[is_given].index(request.number)
    best = request.knowledge.best(rank, _quasi_random(request))
    return None if best is None or request.is_repeat(best) else best


def _guided(request: _Request) -> dict[str, Any]:
    """Quasi-random draws first, and the best of earlier studies; later a Gaussian process chooses."""
    recipe = _given_recipe(request)
    best = _from_earlier(request, is_given=recipe is not None)
    if best is not None:
        return best
    if request.number >= (GUIDED_FROM if recipe is None else GUIDED_FROM_GIVEN):
        distributions = to_distributions(request.search)
        history = []
        for trial in request.history:
            if trial.drawn is None or can_hold_all(distributions, trial.drawn):
                history.append(trial)
        random = np.random.default_rng(request.trial_seed)
        trends = None if request.knowledge is None else request.knowledge.trends
        drawn = gp.draw(request.search, history, request.last_rung, random, request.is_repeat, trends)
        if drawn:
            return drawn
    elif recipe is not None and request.number % 2:
        return _near(request, recipe)
    return _quasi_random(request)


def _tpe(request: _Request) -> dict[str, Any]:
    """Optuna's tree-structured Parzen estimator with its defaults."""
    distributions = to_distributions(request.search)
    sampler = optuna.samplers.TPESampler(seed=request.trial_seed)
    with quiet_optuna():
        study = optuna.create_study(sampler=sampler, direction="minimize")
    worst = worst_value(request.history)
    for trial in request.history:
        frozen = frozen_trial(trial, distributions, worst, request.last_rung)
        if frozen is not None:
            study.add_trial(frozen)
    if request.given:
        study.enqueue_trial(dict(request.given))
    with quiet_optuna():
        asked_trial = study.ask(dict(distributions))
    return {name: asked_trial.params[name] for name in distributions}


SAMPLERS: dict[str, Callable[[_Request], dict[str, Any]]] = {
    "random": _random,
    "quasi-random": _quasi_random,
    "tpe": _tpe,
    "guided": _guided,
}


def worst_value(history: Sequence[Configuration]) -> float:
    """The highest finite value of any rung; 1 where there is none."""
    values = [rung.value for trial in history for rung in trial.rungs]
    return max(filter(math.isfinite, values), default=1.0)


def frozen_trial(
    trial: Configuration, distributions: Mapping[str, BaseDistribution], worst: float, last_rung: int
) -> FrozenTrial | None:
    """The trial as Optuna's sampler reads it; None if it says nothing yet.

    A paused trial is PRUNED with the curve that it has: Optuna 5's TPE would count a RUNNING one as bad. A trial that
    failed by its parameters (diverged, out of memory) is PRUNED with the `worst` value, since TPE never reads FAIL.
    """
    if trial.drawn is None or not can_hold_all(distributions, trial.drawn):
        return None
    is_bad = trial.failure in BAD_PARAMETERS
    if not is_bad and (trial.failure is not None or not trial.curve):
        return None
    state = TrialState.PRUNED
    value = None
    curve = trial.curve
    if is_bad:
        curve = {trial.steps or 1: worst}
    elif trial.steps >= last_rung:
        state = TrialState.COMPLETE
        value = trial.value
    frozen = create_trial(
        state=state,
        value=value,
        params=dict(trial.drawn),
        distributions=dict(distributions),
        intermediate_values=curve,
    )
    if trial.failure == "oom":
        frozen.set_constraint(MEMORY_CONSTRAINT, 1.0)
    return frozen


def halton_point(dimensions: int, number: int, seed: int) -> NDArray[np.float64]:
    """[dimensions] Point `number` (from 0) of the seed's own scrambled Halton sequence in the unit cube.

    Every digit of the radical inverse is permuted by a permutation of its own (Owen, arXiv:1706.02808, algorithm 1).
    Equal to scipy.stats.qmc.Halton, whose import takes 44 MB of a supervisor.
    """
    random = np.random.default_rng(seed).spawn(1)[0]  # as scipy derives it
    return np.array([_radical_inverse(number, base, random) for base in _primes(dimensions)])


def _radical_inverse(number: int, base: int, random: np.random.Generator) -> float:
    """The permuted digits of `number` in `base`, read backwards behind the point."""
    value = 0.0
    weight = 1.0
    digits_left = number
    for _ in range(math.ceil(_FLOAT_BITS / math.log2(base)) - 1):
        permutation = np.arange(base)
        random.shuffle(permutation)
        digits_left, digit = divmod(digits_left, base)
        weight /= base
        value += float(permutation[digit]) * weight
    return value


def _primes(count: int) -> list[int]:
    primes: list[int] = []
    number = 2
    while len(primes) < count:
        if all(number % prime for prime in primes):
            primes.append(number)
        number += 1
    return primes
