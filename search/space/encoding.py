"""Drawn values as points of the unit cube, and back: where distances mean something."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.space.distributions import Choice, FloatRange, IntRange, Range
from search.space.knobs import same

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
            features.append(float(_place(one, value)))
    return np.array(features)


def snapped(search: Mapping[str, Range], places: Points) -> Points:
    """[n, features]: the points of what `drawn` makes of `places` [n, knobs], a knob at a time."""
    columns = []
    for at, name in enumerate(names(search)):
        one, place = search[name], _within(places[:, at])
        if isinstance(one, Choice):
            taken = (place * len(one.values)).astype(int)
            columns.append(math.sqrt(0.5) * (taken[:, None] == np.arange(len(one.values))))
        else:
            columns.append(_place(one, _numbers(one, place))[:, None])
    return np.concatenate(columns, axis=1)


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
            found.append(float(_place(one, value)))
    return np.array(found)


def _place(one: FloatRange | IntRange, value: float | Points) -> Points:
    if one.high == one.low:
        return np.zeros_like(value, dtype=float)
    if one.log:
        return np.asarray(np.log(value / np.float64(one.low)) / math.log(one.high / one.low))
    return np.asarray((value - np.float64(one.low)) / (one.high - one.low))


def _within(place: Points) -> Points:
    return np.clip(place, 0.0, math.nextafter(1.0, 0.0))


def _value(one: Range, place: float) -> Any:
    inside = _within(np.array([place]))
    if isinstance(one, Choice):
        return one.values[int(inside[0] * len(one.values))]
    value = _numbers(one, inside)[0]
    return int(value) if isinstance(one, IntRange) else float(value)


def _numbers(one: FloatRange | IntRange, place: Points) -> Points:
    """[n] values at places [n], all below 1; whole numbers where the range has them."""
    whole = isinstance(one, IntRange)
    step = one.step or (1 if whole else None)
    if one.log:
        value = one.low * (one.high / one.low) ** place
        value = np.round(value) if whole else value
    elif step is not None:
        count = round((one.high - one.low) / step) + 1
        value = one.low + np.floor(place * count) * step
    else:
        value = one.low + place * (one.high - one.low)
    return np.clip(value, one.low, one.high)
