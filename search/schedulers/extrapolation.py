"""Curves that ended early, extrapolated to the last rung by those that went further; needs numpy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from search.records import Configuration

Array = NDArray[np.float64]

# Values count by their logarithm, up to this many times the best: how badly a trial fails says nothing.
_WORST = 3.0


def final_values(trials: Sequence[Configuration], last_rung: int) -> tuple[Array, Array]:
    """([n], [n]) The logarithm of each trial's value at the last rung, as far as its curve tells, and its variance.

    A curve that ended early is extrapolated rung by rung, by a straight line through the logarithms of those that went
    further; their distance from the line gives the variance. So an early rung that says little moves nobody far.
    """
    steps = sorted({rung.step for trial in trials for rung in trial.rungs} | {last_rung})
    logs: dict[int, dict[int, float]] = {step: {} for step in steps}
    for trial in trials:
        for step, value in trial.curve.items():
            logs[step][trial.number] = _log(value)
    lines = {step: _line(logs[step], logs[later]) for step, later in pairwise(steps)}
    values = []
    variances = []
    for trial in trials:
        value = math.inf
        if trial.rungs and trial.failure is None:
            value = _log(trial.rungs[-1].value)
        variance = 0.0
        for step in steps[:-1]:
            if step >= trial.steps and math.isfinite(value):
                slope, offset, spread = lines[step]
                value = offset + slope * value
                variance = slope**2 * variance + spread
        values.append(value)
        variances.append(variance)
    worst = min(values) + math.log(_WORST)
    return np.minimum(values, worst), np.array(variances)


def most_telling(finals: Array, most: int) -> list[int]:
    """Indices of at most `most` of `finals` [n], in order: the lowest half of them, and others evenly from the rest."""
    if len(finals) <= most:
        return list(range(len(finals)))
    order = finals.argsort(kind="stable")
    lowest = order[: most // 2]
    others = np.sort(order[most // 2 :])
    spread = others[np.linspace(0, len(others) - 1, most - len(lowest)).astype(int)]
    return sorted(int(index) for index in np.concatenate([lowest, spread]))


def _line(early: Mapping[int, float], later: Mapping[int, float]) -> tuple[float, float, float]:
    """(slope, offset, variance) of the later values over the earlier ones, both by trial number.

    Prior: a slope of one, a drop of a tenth, a deviation of a quarter; as firm as two observations.
    """
    both = [number for number in later if number in early]
    if not both:
        return 1.0, -0.1, 0.25**2
    x = np.array([early[number] for number in both])
    y = np.array([later[number] for number in both])
    centered = x - x.mean()
    prior = 2 * 0.3**2
    slope = float((centered @ (y - y.mean()) + prior) / (centered @ centered + prior))
    residuals = y - y.mean() - slope * centered
    variance = float((residuals @ residuals + 2 * 0.25**2) / (len(both) + 2))
    return slope, float(y.mean() - slope * x.mean()), variance


def _log(value: float) -> float:
    return math.log(max(value, 1e-3)) if math.isfinite(value) else 10.0
