"""Model guidance: Thompson sampling from a Gaussian process over the values of all rungs.

The process may have trends: functions of the knobs, such as what earlier studies expect, which the values follow by
weights that are learnt. They stand behind the features of each point.

Shapes: n: trials; candidates; features: of a trial, as search.space.encoding has them; knobs: searched ones; trends.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, solve_triangular
from scipy.linalg.lapack import dpotrf, dpotrs

from search.records import BAD_PARAMETERS, Configuration
from search.schedulers.extrapolation import final_values, most_telling
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
_TREND_SPREAD = 1.0  # standard deviation of a trend's weight, which is expected to be 1

# Configurations -> [m, trends] what the values may follow, in deviations of the values
Trends = Callable[[Sequence[Mapping[str, Any]]], Array]


def draw(
    search: Mapping[str, Range],
    history: Sequence[Configuration],
    last_rung: int,
    random: np.random.Generator,
    is_taken: Callable[[Mapping[str, Any]], bool],
    trends: Trends | None = None,
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
        held = most_telling(finals, _MOST_HELD)
        judged = [judged[index] for index in held]
        finals = finals[held]
        variances = variances[held]
    spread = float(finals.std()) or 1.0
    points = _Points.around(search, judged, trends)
    judged_points = points.of_trials(judged)
    data = Data(
        points=judged_points,
        values=(finals - float(finals.mean())) / spread,
        variances=variances / spread**2,
        features=judged_points.shape[1] - len(points.origin),
    )
    process = fit(data, random)
    if running:
        expected_at = points.of_trials(running)
        data_with_running = data.extended(expected_at, process.posterior(expected_at)[0])
        process = _condition(data_with_running, process.lengths, process.noise)[0]
    candidates = _candidates(search, judged, data.points, process, random)
    mean, deviation = process.posterior(points.of_candidates(candidates))
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


@dataclass(frozen=True)
class Data:
    """What the process is conditioned on: values of mean 0 and deviation 1, each with its own extra variance."""

    points: Array  # [n, features + trends]
    values: Array  # [n]
    variances: Array  # [n]
    features: int  # the others of a point's numbers are trends

    @property
    def residuals(self) -> Array:
        """[n] The values less what the trends are expected to make of them."""
        return self.values - _expected(self.points, self.features)

    def extended(self, points: Array, values: Array) -> Data:
        """With more values, which have no extra variance."""
        return Data(
            np.concatenate([self.points, points]),
            np.concatenate([self.values, values]),
            np.concatenate([self.variances, np.zeros(len(points))]),
            self.features,
        )

    def subset(self, indices: NDArray[np.int_]) -> Data:
        return Data(self.points[indices], self.values[indices], self.variances[indices], self.features)


def _features(search: Mapping[str, Range], trials: Sequence[Configuration]) -> Array:
    return np.stack([encoding.features(search, trial.drawn or {}) for trial in trials])  # [n, features]


@dataclass(frozen=True)
class _Points:
    """Points of the process: features, and behind them the trends less their mean over the judged trials."""

    search: Mapping[str, Range]
    trends: Trends | None
    origin: Array  # [trends]

    @classmethod
    def around(cls, search: Mapping[str, Range], judged: Sequence[Configuration], trends: Trends | None) -> _Points:
        if trends is None:
            return cls(search, None, np.zeros(0))
        return cls(search, trends, trends([trial.drawn or {} for trial in judged]).mean(0))

    def of_trials(self, trials: Sequence[Configuration]) -> Array:
        """[n, features + trends]"""
        return self._with_trends(_features(self.search, trials), lambda: [trial.drawn or {} for trial in trials])

    def of_candidates(self, candidates: Array) -> Array:
        """[candidates, features + trends] Of `candidates` [candidates, knobs] in the unit cube."""
        features = encoding.snapped_features(self.search, candidates)
        return self._with_trends(
            features, lambda: [encoding.from_unit_cube(self.search, coordinates) for coordinates in candidates]
        )

    def _with_trends(self, features: Array, drawn: Callable[[], Sequence[Mapping[str, Any]]]) -> Array:
        if self.trends is None:
            return features
        return np.concatenate([features, self.trends(drawn()) - self.origin], axis=1)


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
    """Posterior of a process with a Matern 5/2 kernel (Rasmussen and Williams 2006, eq. 2.25, 4.17) and trends.

    Without trends its mean is zero. A trend's weight has a normal prior, which is integrated out (eq. 2.40).
    """

    points: Array  # [n, features + trends]
    lengths: Array  # [features]
    noise: float  # variance
    factor: Array  # [n, n] Cholesky factor of kernel and noise in its lower half; the upper half is not read
    weights: Array  # [n]

    def mean(self, points: Array) -> Array:
        """[m] The posterior's mean at `points` [m, features + trends], without the deviation, which costs far more."""
        mean = _kernel(points, self.points, self.lengths) @ self.weights
        return mean + _expected(points, len(self.lengths))

    def posterior(self, points: Array) -> tuple[Array, Array]:
        """([m], [m]) Mean and deviation at `points` [m, features + trends], in units of the values' deviation."""
        cross = _kernel(points, self.points, self.lengths)  # [m, n]
        mean = cross @ self.weights + _expected(points, len(self.lengths))
        explained = solve_triangular(self.factor, cross.T, lower=True, check_finite=False)  # [n, m]
        prior = 1.0 + _TREND_SPREAD**2 * (points[:, len(self.lengths) :] ** 2).sum(1)  # [m]
        return mean, np.sqrt(np.maximum(prior - (explained**2).sum(0), 1e-12))


def _expected(points: Array, features: int) -> Array | float:
    """[m] What the trends of `points` [m, features + trends] are expected to make of values; 0 without trends."""
    return cast(Array, points[:, features:].sum(1)) if points.shape[1] > features else 0.0


def _kernel(first: Array, second: Array, lengths: Array) -> Array:
    """[m, n] Between `first` [m, features + trends] and `second` [n, ...]: Matern 5/2, and the trends' products."""
    features = len(lengths)
    rows = first[:, :features] / lengths
    columns = second[:, :features] / lengths
    squared = (rows**2).sum(1)[:, None] + (columns**2).sum(1)[None, :] - 2.0 * rows @ columns.T
    distance = np.sqrt(5.0 * np.maximum(squared, 0.0))
    kernel = (1.0 + distance + distance**2 / 3.0) * np.exp(-distance)
    if first.shape[1] > features:
        kernel = kernel + _TREND_SPREAD**2 * first[:, features:] @ second[:, features:].T
    return cast(Array, kernel)


def fit(data: Data, random: np.random.Generator) -> Process:
    """The process after `data`, with the hyperparameters of the highest posterior among random ones.

    The first half of the draws comes from the priors, the second half from near the best so far: a search over a
    handful of numbers whose optimum is flat.
    """
    features = data.features
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


def _condition_log(data: Data, hyperparameters: Array) -> tuple[Process, float]:
    """_condition with the logarithms [features + 1] of the length scales and of the noise's deviation."""
    return _condition(data, np.exp(hyperparameters[:-1]), math.exp(2.0 * hyperparameters[-1]))


def _condition(data: Data, lengths: Array, noise: float) -> tuple[Process, float]:
    """The process, and the logarithm of the values' likelihood under it, up to a constant."""
    kernel = _kernel(data.points, data.points, lengths)  # [n, n]
    kernel.flat[:: len(kernel) + 1] += noise + data.variances + 1e-8
    residuals = data.residuals
    # What scipy's cho_factor and cho_solve call, which take longer than LAPACK itself at these sizes.
    factor, failed = dpotrf(kernel, lower=True, clean=False)
    if failed:
        raise LinAlgError(f"the kernel's leading minor {failed} is not positive definite")
    weights, _ = dpotrs(factor, residuals, lower=True)  # [n]
    evidence = -0.5 * float(residuals @ weights) - float(np.log(np.diag(factor)).sum())
    return Process(data.points, lengths, noise, factor, weights), evidence
