"""Model guidance: the next configuration from a Gaussian process over what all rungs have said so far."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.records import BAD_PARAMETERS, Configuration
from search.samplers import surrogate
from search.space import encoding
from search.space.distributions import Range

Array = NDArray[np.float64]

# Values count by their logarithm, up to this many times the best: how badly something fails says nothing.
_WORST = 3.0
_CANDIDATES, _NEAR = 600, 200


def draw(
    search: Mapping[str, Range], history: Sequence[Configuration], last_rung: int, random: np.random.Generator
) -> dict[str, Any] | None:
    """Values where a draw from the model's belief is lowest; None while too little is known for a model.

    Thompson sampling with each candidate's belief drawn by itself: it keeps looking around where expected improvement
    goes back to the same corner (replayed on recorded curves: studies/README.md). What is running is believed to come
    out as the model expects, so that workers beside each other spread out.
    """
    known = [one for one in history if one.drawn is not None and (one.rungs or one.failure in BAD_PARAMETERS)]
    if sum(1 for one in known if one.rungs and one.failure is None) < 2:
        return None
    values, extra = finals(known, last_rung)
    points = np.stack([encoding.point(search, one.drawn or {}) for one in known])
    middle, spread = float(values.mean()), float(values.std()) or 1.0
    process = surrogate.fit(points, (values - middle) / spread, extra / spread**2, random)
    busy = [one for one in history if one.drawn is not None and not one.rungs and one.failure is None]
    if busy:
        there = np.stack([encoding.point(search, one.drawn or {}) for one in busy])
        believed, _ = process.at(there)
        process = _with(process, points, (values - middle) / spread, extra / spread**2, there, believed)
    places = _candidates(search, known, points, process, random)
    mean, deviation = process.at(encoding.snapped(search, places))
    return encoding.drawn(search, places[int((mean + deviation * random.standard_normal(len(mean))).argmin())])


def finals(known: Sequence[Configuration], last_rung: int) -> tuple[Array, Array]:
    """The logarithm of each one's value at the last rung, as far as its curve tells, and that guess's variance.

    A curve that ended early is carried on rung by rung, by a straight line through the logarithms of those that went
    further; how far these lie from the line is the variance. So an early rung that says little moves nobody far.
    """
    steps = sorted({rung.step for one in known for rung in one.rungs} | {last_rung})
    logs = {step: {one.number: _log(one.curve[step]) for one in known if step in one.curve} for step in steps}
    lines = {step: _line(logs[step], logs[later]) for step, later in pairwise(steps)}
    told = []
    for one in known:
        value, variance = (_log(one.rungs[-1].value), 0.0) if one.rungs and one.failure is None else (math.inf, 0.0)
        for step in steps[:-1]:
            if step >= one.steps and math.isfinite(value):
                slope, offset, spread = lines[step]
                value, variance = offset + slope * value, slope**2 * variance + spread
        told.append((value, variance))
    worst = min(value for value, _ in told) + math.log(_WORST)
    return np.array([min(value, worst) for value, _ in told]), np.array([variance for _, variance in told])


def _line(early: Mapping[int, float], later: Mapping[int, float]) -> tuple[float, float, float]:
    """(slope, offset, variance) of what came later over what came early, by configuration.

    Before anything is seen: a slope of one, a drop of a tenth, off by a quarter; as firm as two that were seen.
    """
    both = [number for number in later if number in early]
    if not both:
        return 1.0, -0.1, 0.25**2
    x, y = np.array([early[number] for number in both]), np.array([later[number] for number in both])
    centred = x - x.mean()
    prior = 2 * 0.3**2
    slope = float((centred @ (y - y.mean()) + prior) / (centred @ centred + prior))
    left = y - y.mean() - slope * centred
    variance = float((left @ left + 2 * 0.25**2) / (len(both) + 2))
    return slope, float(y.mean() - slope * x.mean()), variance


def _log(value: float) -> float:
    return math.log(max(value, 1e-3)) if math.isfinite(value) else 10.0


def _with(
    process: surrogate.Process, points: Array, values: Array, extra: Array, there: Array, believed: Array
) -> surrogate.Process:
    return surrogate.condition(
        process,
        np.concatenate([points, there]),
        np.concatenate([values, believed]),
        np.concatenate([extra, np.zeros(len(there))]),
    )


def _candidates(
    search: Mapping[str, Range],
    known: Sequence[Configuration],
    points: Array,
    process: surrogate.Process,
    random: np.random.Generator,
) -> Array:
    """[candidates, knobs]: places all over the cube, and some near those that the model thinks best."""
    everywhere = random.random((_CANDIDATES, len(search)))
    order = process.at(points)[0].argsort()[:5]
    bases = np.stack([encoding.places(search, known[index].drawn or {}, random) for index in order])
    near = bases[random.integers(len(bases), size=_NEAR)]
    moved = random.random(near.shape) < 0.5
    near = np.clip(np.where(moved, near + 0.12 * random.standard_normal(near.shape), near), 0.0, 1.0)
    return np.concatenate([everywhere, near])
