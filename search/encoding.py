"""Drawn values as points of the unit cube, and back: where distances mean something."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.knobs import same
from search.ranges import Choice, FloatRange, IntRange, Range

Points = NDArray[np.float64]


def names(search: Mapping[str, Range]) -> list[str]:
    """The order of the knobs in a point: that of their names, whatever the file's."""
    return sorted(search)


def point(search: Mapping[str, Range], drawn: Mapping[str, Any]) -> Points:
    """[features]: a number's place in its range, 0 to 1; for a choice one feature a value, 1 for the one taken.

    Two choices are as far apart as the ends of a range: each feature counts 1 / sqrt(2).
    """
    features: list[float] = []
    for name in names(search):
        one, value = search[name], drawn[name]
        if isinstance(one, Choice):
            features += [math.sqrt(0.5) * float(same(value, each)) for each in one.values]
        else:
            features.append(_place(one, value))
    return np.array(features)


def drawn(search: Mapping[str, Range], places: Points) -> dict[str, Any]:
    """Values for a point [knobs] of the unit cube: one number a knob, choices included."""
    return {name: _value(search[name], float(place)) for name, place in zip(names(search), places, strict=True)}


def places(search: Mapping[str, Range], values: Mapping[str, Any], random: np.random.Generator) -> Points:
    """A point [knobs] that `drawn` turns into `values`; where a choice lies in its share of the line is random."""
    found = []
    for name in names(search):
        one, value = search[name], values[name]
        if isinstance(one, Choice):
            index = next((at for at, each in enumerate(one.values) if same(each, value)), 0)
            found.append((index + float(random.random())) / len(one.values))
        else:
            found.append(_place(one, value))
    return np.array(found)


def _place(one: FloatRange | IntRange, value: float) -> float:
    if one.high == one.low:
        return 0.0
    if one.log:
        return math.log(value / one.low) / math.log(one.high / one.low)
    return (value - one.low) / (one.high - one.low)


def _value(one: Range, place: float) -> Any:
    place = min(max(place, 0.0), math.nextafter(1.0, 0.0))
    if isinstance(one, Choice):
        return one.values[int(place * len(one.values))]
    whole = isinstance(one, IntRange)
    step = one.step or (1 if whole else None)
    if one.log:
        value = one.low * (one.high / one.low) ** place
        value = round(value) if whole else value
    elif step is not None:
        count = round((one.high - one.low) / step) + 1
        value = one.low + int(place * count) * step
    else:
        value = one.low + place * (one.high - one.low)
    value = min(max(value, one.low), one.high)
    return int(value) if whole else float(value)
