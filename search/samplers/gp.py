"""Model guidance: Thompson sampling from a Gaussian process over the values of all rungs.

Shapes: n: trials; candidates; features: of a trial, as search.space.encoding has them; knobs: searched ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, solve_triangular

from search.records import BAD_PARAMETERS, Configuration
from search.schedulers.extrapolation import final_values
from search.space import encoding
from search.space.distributions import Range

Array = NDArray[np.float64]

_WIDE_CANDIDATES = 600
_NEAR_CANDIDATES = 200
_BEST_BASES = 5  # trials around which the near candidates lie
_NEAR_DISTANCE = 0.12  # standard deviation, of the unit cube
# Prior of each length scale, in units of the cube: center, and spread in e-folds. Most knobs of a training matter
# little, so half of the range and more is the rule; learning rates end near a fifth of it. Longer ones do as well on
# our two tables and no longer find the valley of a single knob (studies/README.md, 2026-11-25).
_LENGTH = 0.7
_LENGTH_SPREAD = 0.8
_NOISE = 0.15  # of the values' standard deviation
_NOISE_SPREAD = 1.0
_MOST_FITTED = 128  # values that the hyperparameters are fitted to; the process itself holds more
# Trials that the process holds: its cost grows with their third power, and 2,000 took .6 s a draw (2026-11-29).
_MOST_HELD = 512
_HYPERPARAMETER_DRAWS = 48  # from wide to near


def draw(
    search: Mapping[str, Range],
    history: Sequence[Configuration],
    last_rung: int,
    random: np.random.Generator,
    is_taken: Callable[[Mapping[str, Any]], bool],
) -> dict[str, Any] | None:
    """Values where a draw from the model's posterior is lowest among those that are not taken yet.

    None while too little is known for a model, and where every candidate is taken.

    Each candidate's posterior is drawn independently: that keeps exploring where expected improvement returns to the
    same corner (simulated on recorded curves: studies/README.md). Running trials are assumed to give what the model
    expects of them, so that workers beside each other spread out.
    """
    judged, running = _judged_and_running(history)
    if sum(bool(trial.rungs) and trial.failure is None for trial in judged) < 2:
        return None
    finals, variances = final_values(judged, last_rung)
    if len(judged) > _MOST_HELD:
        held = _most_telling(finals)
        judged = [judged[index] for index in held]
        finals = finals[held]
        variances = variances[held]
    spread = float(finals.std()) or 1.0
    data = _Data(
        points=_features(search, judged),
        values=(finals - float(finals.mean())) / spread,
        variances=variances / spread**2,
    )
    process = fit(data, random)
    if running:
        expected_at = _features(search, running)
        data_with_running = data.extended(expected_at, process.posterior(expected_at)[0])
        process = _condition(data_with_running, process.lengths, process.noise)[0]
    candidates = _candidates(search, judged, data.points, process, random)
    mean, deviation = process.posterior(encoding.snapped_features(search, candidates))
    sampled = mean + deviation * random.standard_normal(len(mean))  # [candidates]
    for index in sampled.argsort(kind="stable"):
        drawn = encoding.from_unit_cube(search, candidates[index])
        if not is_taken(drawn):
            return drawn
    return None


def _judged_and_running(history: Sequence[Configuration]) -> tuple[list[Configuration], list[Configuration]]:
    """Trials with a value, bad parameters among them, and those that have none yet."""
    judged = []
    running = []
    for trial in history:
        if trial.drawn is None:
            continue
        if trial.rungs or trial.failure in BAD_PARAMETERS:
            judged.append(trial)
        elif trial.failure is None:
            running.append(trial)
    return judged, running


def _most_telling(finals: Array) -> NDArray[np.int_]:
    """[_MOST_HELD] Indices of the lowest half of what is held, and of others evenly from all that remains, in order."""
    order = finals.argsort(kind="stable")
    lowest = order[: _MOST_HELD // 2]
    others = np.sort(order[_MOST_HELD // 2 :])
    spread = others[np.linspace(0, len(others) - 1, _MOST_HELD - len(lowest)).astype(int)]
    return np.sort(np.concatenate([lowest, spread]))


@dataclass(frozen=True)
class _Data:
    """What the process is conditioned on: values of mean 0 and deviation 1, each with its own extra variance."""

    points: Array  # [n, features]
    values: Array  # [n]
    variances: Array  # [n]

    def extended(self, points: Array, values: Array) -> _Data:
        """With more values, which have no extra variance."""
        return _Data(
            np.concatenate([self.points, points]),
            np.concatenate([self.values, values]),
            np.concatenate([self.variances, np.zeros(len(points))]),
        )

    def subset(self, indices: NDArray[np.int_]) -> _Data:
        return _Data(self.points[indices], self.values[indices], self.variances[indices])


def _features(search: Mapping[str, Range], trials: Sequence[Configuration]) -> Array:
    return np.stack([encoding.features(search, trial.drawn or {}) for trial in trials])  # [n, features]


def _candidates(
    search: Mapping[str, Range],
    trials: Sequence[Configuration],
    points: Array,
    process: Process,
    random: np.random.Generator,
) -> Array:
    """[candidates, knobs] in the unit cube: all over it, and some near the trials that the model thinks best."""
    wide = random.random((_WIDE_CANDIDATES, len(search)))  # [wide candidates, knobs]
    order = process.mean(points).argsort()[:_BEST_BASES]
    bases = np.stack([encoding.to_unit_cube(search, trials[index].drawn or {}, random) for index in order])
    near = bases[random.integers(len(bases), size=_NEAR_CANDIDATES)]  # [near candidates, knobs]
    is_moved = random.random(near.shape) < 0.5
    moved = near + _NEAR_DISTANCE * random.standard_normal(near.shape)
    near = np.clip(np.where(is_moved, moved, near), 0.0, 1.0)
    return np.concatenate([wide, near])


@dataclass(frozen=True)
class Process:
    """Posterior of a zero-mean process with a Matern 5/2 kernel (Rasmussen and Williams 2006, eq. 2.25, 4.17)."""

    points: Array  # [n, features]
    lengths: Array  # [features]
    noise: float  # variance
    factor: Array  # [n, n] Cholesky factor of kernel and noise in its lower half; the upper half is not read
    weights: Array  # [n]

    def mean(self, points: Array) -> Array:
        """[m] The posterior's mean at `points` [m, features], without the deviation, which costs far more."""
        return _kernel(points, self.points, self.lengths) @ self.weights

    def posterior(self, points: Array) -> tuple[Array, Array]:
        """([m], [m]) Mean and standard deviation at `points` [m, features], in units of the values' deviation."""
        cross = _kernel(points, self.points, self.lengths)  # [m, n]
        mean = cross @ self.weights
        explained = solve_triangular(self.factor, cross.T, lower=True, check_finite=False)  # [n, m]
        return mean, np.sqrt(np.maximum(1.0 - (explained**2).sum(0), 1e-12))


def _kernel(first: Array, second: Array, lengths: Array) -> Array:
    """[m, n] Matern 5/2 between `first` [m, features] and `second` [n, features]; 1 at no distance."""
    rows = first / lengths
    columns = second / lengths
    squared = (rows**2).sum(1)[:, None] + (columns**2).sum(1)[None, :] - 2.0 * rows @ columns.T
    distance = np.sqrt(5.0 * np.maximum(squared, 0.0))
    return cast(Array, (1.0 + distance + distance**2 / 3.0) * np.exp(-distance))


def fit(data: _Data, random: np.random.Generator) -> Process:
    """The process after `data`, with the hyperparameters of the highest posterior among random ones.

    The first half of the draws comes from the priors, the second half from near the best so far: a search over a
    handful of numbers whose optimum is flat.
    """
    features = data.points.shape[1]
    fitted = data
    if len(data.values) > _MOST_FITTED:  # a study of hundreds would wait a second for each draw
        fitted = data.subset(np.linspace(0, len(data.values) - 1, _MOST_FITTED).astype(int))
    center = np.concatenate([np.full(features, math.log(_LENGTH)), [math.log(_NOISE)]])  # [features + 1]
    spreads = np.concatenate([np.full(features, _LENGTH_SPREAD), [_NOISE_SPREAD]])
    best = center
    best_process, best_evidence = _condition_log(fitted, center)
    for attempt in range(1, _HYPERPARAMETER_DRAWS):
        normal = random.standard_normal(features + 1)
        candidate = center + spreads * normal
        if attempt >= _HYPERPARAMETER_DRAWS // 2:
            candidate = best + 0.4 * spreads * normal
        prior = -0.5 * float((((candidate - center) / spreads) ** 2).sum())
        process, evidence = _condition_log(fitted, candidate)
        if evidence + prior > best_evidence:
            best = candidate
            best_evidence = evidence + prior
            best_process = process
    if fitted is data:
        return best_process
    return _condition(data, best_process.lengths, best_process.noise)[0]


def _condition_log(data: _Data, hyperparameters: Array) -> tuple[Process, float]:
    """_condition with the logarithms [features + 1] of the length scales and of the noise's deviation."""
    return _condition(data, np.exp(hyperparameters[:-1]), math.exp(2.0 * hyperparameters[-1]))


def _condition(data: _Data, lengths: Array, noise: float) -> tuple[Process, float]:
    """The process, and the logarithm of the values' likelihood under it, up to a constant."""
    kernel = _kernel(data.points, data.points, lengths)  # [n, n]
    kernel[np.diag_indices_from(kernel)] += noise + data.variances + 1e-8
    factor, _ = cho_factor(kernel, lower=True, check_finite=False)
    weights = cho_solve((factor, True), data.values, check_finite=False)  # [n]
    evidence = -0.5 * float(data.values @ weights) - float(np.log(np.diag(factor)).sum())
    return Process(data.points, lengths, noise, factor, weights), evidence
