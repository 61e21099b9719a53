"""Student's t without scipy, whose import takes longer than all that `status` does with it."""

from __future__ import annotations

import math
from statistics import NormalDist

_STEPS = 100  # of Newton's method at most; it takes some five, and some twenty at one degree of freedom
_TOLERANCE = 1e-15  # of a step, relative


def quantile(share: float, freedom: int) -> float:
    """The value that Student's t with `freedom` degrees of freedom stays below with probability `share`.

    Newton's method on `_tail`, from the normal distribution's value. In the tail the distribution function is convex
    and the start lies within it: the steps go outwards and do not overshoot.
    """
    if share == 0.5:
        return 0.0
    tail = min(share, 1 - share)
    value = -NormalDist().inv_cdf(tail)
    for _ in range(_STEPS):
        step = (_upper_tail(value, freedom) - tail) / _density(value, freedom)
        value += step
        if abs(step) <= _TOLERANCE * value:
            break
    return math.copysign(value, share - 0.5)


def _upper_tail(value: float, freedom: int) -> float:
    """The probability to be above `value` >= 0: Abramowitz and Stegun 26.7.3 and 26.7.4, exact for whole degrees."""
    angle = math.atan2(value, math.sqrt(freedom))
    cosine = math.cos(angle)
    is_odd = freedom % 2 == 1
    term = cosine if is_odd else 1.0
    terms = 0.0
    for index in range(3 if is_odd else 2, freedom + 1, 2):
        terms += term
        term *= cosine**2 * (index - 1) / index
    within = math.sin(angle) * terms
    if is_odd:
        within = 2 / math.pi * (angle + within)
    return (1 - within) / 2


def _density(value: float, freedom: int) -> float:
    logarithm = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - 0.5 * math.log(freedom * math.pi)
    return math.exp(logarithm - (freedom + 1) / 2 * math.log1p(value**2 / freedom))
