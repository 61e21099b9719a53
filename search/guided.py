"""Model guidance: the next configuration from a Gaussian process over what all rungs have said so far."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from search import encoding, surrogate
from search.ranges import Range
from search.records import BAD_PARAMETERS, Configuration

Array = NDArray[np.float64]

# Values count by their logarithm, up to this many times the best: how badly something fails says nothing.
_WORST = 3.0
_CANDIDATES, _NEAR = 600, 200


def draw(
    search: Mapping[str, Range], history: Sequence[Configuration], last_rung: int, random: np.random.Generator
) -> dict[str, Any] | None:
    """Values where the expected improvement per second is highest; None while too little is known for a model.

    What is running is believed to come out as the model expects, so that workers beside each other spread out.
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
    drawn = [encoding.drawn(search, place) for place in places]
    features = np.stack([encoding.point(search, one) for one in drawn])
    mean, deviation = process.at(features)
    best = float(process.at(points)[0].min())
    gain = _expected_improvement(best, mean, deviation) / _seconds(known, points, features)
    return drawn[int(gain.argmax())]


def finals(known: Sequence[Configuration], last_rung: int) -> tuple[Array, Array]:
    """The logarithm of each one's value at the last rung, as far as its curve tells, and that guess's variance.

    A curve that ended early is carried on by the mean change of those that went further, rung by rung; how much
    these changes differ is the variance.
    """
    steps = sorted({rung.step for one in known for rung in one.rungs})
    logs = {step: {one.number: _log(one.curve[step]) for one in known if step in one.curve} for step in steps}
    ahead = {last_rung: (0.0, 0.0)}
    for step, later in zip(reversed(steps[:-1]), reversed(steps[1:]), strict=True):
        changes = [logs[later][number] - logs[step][number] for number in logs[later] if number in logs[step]]
        change, variance = ahead.get(later, (0.0, 0.0))
        # A change seen twice is hardly known: as if a quarter had been seen two times more.
        spread = (sum((one - float(np.mean(changes))) ** 2 for one in changes) + 2 * 0.25**2) / (len(changes) + 2)
        ahead[step] = (change + (float(np.mean(changes)) if changes else 0.0), variance + spread)
    told = [
        (_log(one.rungs[-1].value) + ahead.get(one.steps, (0.0, 0.0))[0], ahead.get(one.steps, (0.0, 0.0))[1])
        if one.rungs and one.failure is None else (math.inf, 0.0)
        for one in known
    ]
    worst = min(value for value, _ in told) + math.log(_WORST)
    return np.array([min(value, worst) for value, _ in told]), np.array([variance for _, variance in told])


def _log(value: float) -> float:
    return math.log(max(value, 1e-3)) if math.isfinite(value) else 10.0


def _with(
    process: surrogate.Process, points: Array, values: Array, extra: Array, there: Array, believed: Array
) -> surrogate.Process:
    return surrogate.condition(
        process, np.concatenate([points, there]), np.concatenate([values, believed]),
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
    near = []
    for index in random.choice(order, _NEAR):
        place = encoding.places(search, known[index].drawn or {}, random)
        moved = random.random(len(place)) < 0.5
        near.append(np.clip(np.where(moved, place + 0.12 * random.standard_normal(len(place)), place), 0.0, 1.0))
    return np.concatenate([everywhere, np.stack(near)])


def _expected_improvement(best: float, mean: Array, deviation: Array) -> Array:
    """Jones et al. 1998, eq. 15, for a value to be minimised."""
    ahead = (best - mean) / deviation
    density = np.exp(-0.5 * ahead**2) / math.sqrt(2.0 * math.pi)
    return np.asarray((best - mean) * ndtr(ahead) + deviation * density, dtype=np.float64)


def _seconds(known: Sequence[Configuration], points: Array, features: Array) -> Array:
    """Seconds a step that each place will take, up to a factor: a ridge regression of its logarithm."""
    rows = [(index, one.seconds) for index, one in enumerate(known)]
    rows = [(index, seconds / known[index].steps) for index, seconds in rows if seconds > 0 and known[index].steps]
    if len(rows) < 4:
        return np.ones(len(features))
    there = points[[index for index, _ in rows]]
    logs = np.log([seconds for _, seconds in rows])
    centred = there - there.mean(0)
    slope = np.linalg.solve(centred.T @ centred + 0.5 * np.eye(points.shape[1]), centred.T @ (logs - logs.mean()))
    return np.asarray(np.exp((features - there.mean(0)) @ slope), dtype=np.float64)
