"""A Gaussian process over points of the unit cube, in numpy: what values a search may expect where it has not been."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, solve_triangular

Array = NDArray[np.float64]

# Centre and spread (in e-folds) of what each length scale is believed to be before any value is seen: most knobs of a
# training matter little, so half of the range and more is the rule; learning rates end near a fifth of it. Longer ones
# do as well on our two tables and no longer find the valley of a single knob (studies/README.md, 2026-11-25).
_LENGTH, _LENGTH_SPREAD = 0.7, 0.8
_NOISE, _NOISE_SPREAD = 0.15, 1.0  # of the values' standard deviation
_ENOUGH = 128  # values that the settings are found by; the process itself holds all
_SEARCHED = 48  # hyperparameters looked at, from wide to near


@dataclass(frozen=True)
class Process:
    """Posterior of a zero-mean process with a Matern 5/2 kernel (Rasmussen and Williams 2006, eq. 2.25, 4.17)."""

    points: Array  # [n, features]
    lengths: Array  # [features]
    noise: float  # variance
    factor: Array  # [n, n] Cholesky factor of kernel and noise in its lower half; the upper half is not read
    weights: Array  # [n]

    def at(self, points: Array) -> tuple[Array, Array]:
        """Mean and standard deviation [m] at `points` [m, features], in units of the values' standard deviation."""
        cross = _kernel(points, self.points, self.lengths)
        mean = cross @ self.weights
        explained = solve_triangular(self.factor, cross.T, lower=True, check_finite=False)
        return mean, np.sqrt(np.maximum(1.0 - (explained**2).sum(0), 1e-12))


def _kernel(one: Array, other: Array, lengths: Array) -> Array:
    """Matern 5/2 with a length scale a feature; 1 at no distance."""
    left, right = one / lengths, other / lengths
    squared = (left**2).sum(1)[:, None] + (right**2).sum(1)[None, :] - 2.0 * left @ right.T
    distance = np.sqrt(5.0 * np.maximum(squared, 0.0))
    return cast(Array, (1.0 + distance + distance**2 / 3.0) * np.exp(-distance))


def fit(points: Array, values: Array, extra: Array, random: np.random.Generator) -> Process:
    """The process after `values` [n] (mean 0, deviation 1) at `points`; each has noise and its `extra` variance [n].

    Length scales and noise are those of the highest posterior among some drawn from their priors and, half of them,
    near the best so far: a search over a handful of numbers whose optimum is flat.
    """
    features, best = points.shape[1], -math.inf
    # Settings of a handful of numbers do not need every value; a study of hundreds would wait a second for each draw.
    some = np.arange(len(values)) if len(values) <= _ENOUGH else np.linspace(0, len(values) - 1, _ENOUGH).astype(int)
    kept = _condition(points[:1], values[:1], extra[:1], np.full(features, _LENGTH), _NOISE**2)[0]
    settings = np.concatenate([np.full(features, math.log(_LENGTH)), [math.log(_NOISE)]])
    spreads = np.concatenate([np.full(features, _LENGTH_SPREAD), [_NOISE_SPREAD]])
    centre = settings.copy()
    for tried in range(_SEARCHED):
        if tried == 0:
            candidate = centre
        elif tried < _SEARCHED // 2:
            candidate = centre + spreads * random.standard_normal(features + 1)
        else:
            candidate = settings + 0.4 * spreads * random.standard_normal(features + 1)
        prior = -0.5 * float((((candidate - centre) / spreads) ** 2).sum())
        lengths, noise = np.exp(candidate[:-1]), math.exp(2.0 * candidate[-1])
        one, evidence = _condition(points[some], values[some], extra[some], lengths, noise)
        if evidence + prior > best:
            best, settings, kept = evidence + prior, candidate, one
    if len(some) < len(values):
        kept = _condition(points, values, extra, kept.lengths, kept.noise)[0]
    return kept


def condition(process: Process, points: Array, values: Array, extra: Array) -> Process:
    """The same process after other values."""
    return _condition(points, values, extra, process.lengths, process.noise)[0]


def _condition(points: Array, values: Array, extra: Array, lengths: Array, noise: float) -> tuple[Process, float]:
    """The process, and the logarithm of the values' likelihood under it, up to a constant."""
    kernel = _kernel(points, points, lengths)
    kernel[np.diag_indices_from(kernel)] += noise + extra + 1e-8
    factor, _ = cho_factor(kernel, lower=True, check_finite=False)
    weights = cho_solve((factor, True), values, check_finite=False)
    evidence = -0.5 * float(values @ weights) - float(np.log(np.diag(factor)).sum())
    return Process(points, lengths, noise, factor, weights), evidence
