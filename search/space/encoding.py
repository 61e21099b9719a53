"""Drawn values as points of the unit cube and back, so that distances between them mean something.

Two forms, knobs sorted by name in both: coordinates [knobs], one number from 0 to 1 a knob, choices included; and
features [features], the same but with one number for each value of a choice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.space.distributions import Choice, FloatRange, IntRange, Range
from search.space.knobs import same

Array = NDArray[np.float64]

# A choice's feature: two choices are then as far apart as the ends of a range.
CHOICE_FEATURE = math.sqrt(0.5)


def features(search: Mapping[str, Range], drawn: Mapping[str, Any]) -> Array:
    """[features] A number's position in its range, 0 to 1; for a choice a feature for each value, 0 if not taken."""
    columns: list[float] = []
    for name in sorted(search):
        searched = search[name]
        value = drawn[name]
        if isinstance(searched, Choice):
            columns += [CHOICE_FEATURE * float(same(value, choice)) for choice in searched.values]
        else:
            columns.append(float(_position(searched, value)))
    return np.array(columns)


def snapped_features(search: Mapping[str, Range], coordinates: Array) -> Array:
    """[n, features] Of what from_unit_cube makes of each row of `coordinates` [n, knobs]."""
    columns = []
    for knob, name in enumerate(sorted(search)):
        searched = search[name]
        position = _below_one(coordinates[:, knob])  # [n]
        if isinstance(searched, Choice):
            index = (position * len(searched.values)).astype(int)
            columns.append(CHOICE_FEATURE * (index[:, None] == np.arange(len(searched.values))))
        else:
            columns.append(_position(searched, _numbers(searched, position))[:, None])
    return np.concatenate(columns, axis=1)


def from_unit_cube(search: Mapping[str, Range], coordinates: Array) -> dict[str, Any]:
    """The values that `coordinates` [knobs] stand for."""
    return {
        name: _value(search[name], float(position)) for name, position in zip(sorted(search), coordinates, strict=True)
    }


def moved(
    search: Mapping[str, Range], values: Mapping[str, Any], spread: float | Array, random: np.random.Generator
) -> dict[str, Any]:
    """A draw around `values`: every knob from a normal distribution, cut off at the ends of its range.

    Args:
        spread: The standard deviation in parts of the range, of all knobs or of each [knobs]; a choice's values share
            the range evenly.
    """
    base = to_unit_cube(search, values, random)
    return from_unit_cube(search, np.clip(base + spread * random.standard_normal(len(base)), 0.0, 1.0))


def to_unit_cube(search: Mapping[str, Range], values: Mapping[str, Any], random: np.random.Generator) -> Array:
    """[knobs] Coordinates that from_unit_cube turns into `values`; a choice lies anywhere in its part of the line."""
    coordinates = []
    for name in sorted(search):
        searched = search[name]
        if isinstance(searched, Choice):
            index = _choice_index(searched, values[name])
            coordinates.append((index + float(random.random())) / len(searched.values))
        else:
            coordinates.append(float(_position(searched, values[name])))
    return np.array(coordinates)


def position(searched: FloatRange | IntRange, value: float) -> float:
    """Where a number lies in a range: 0 and 1 at its ends, less or more outside of them."""
    return float(_position(searched, value))


def nearest(searched: FloatRange | IntRange, value: float) -> Any:
    """The value of a range that is nearest to a number, which may lie outside of it."""
    return _value(searched, position(searched, min(max(value, searched.low), searched.high)))


def _choice_index(searched: Choice, value: Any) -> int:
    for index, choice in enumerate(searched.values):
        if same(choice, value):
            return index
    return 0


def _position(searched: FloatRange | IntRange, value: float | Array) -> Array:
    if searched.high == searched.low:
        return np.zeros_like(value, dtype=float)
    if searched.log:
        return np.asarray(np.log(value / np.float64(searched.low)) / math.log(searched.high / searched.low))
    return np.asarray((value - np.float64(searched.low)) / (searched.high - searched.low))


def _below_one(position: Array) -> Array:
    return np.clip(position, 0.0, math.nextafter(1.0, 0.0))


def _value(searched: Range, position: float) -> Any:
    inside = _below_one(np.array([position]))
    if isinstance(searched, Choice):
        return searched.values[int(inside[0] * len(searched.values))]
    value = _numbers(searched, inside)[0]
    return int(value) if isinstance(searched, IntRange) else float(value)


def _numbers(searched: FloatRange | IntRange, position: Array) -> Array:
    """[n] The values at positions [n], all below 1; whole numbers where the range has them."""
    is_whole = isinstance(searched, IntRange)
    low = searched.low
    step = searched.step
    if step is None and is_whole:
        step = 1
    if searched.log:
        value = low * (searched.high / low) ** position
        value = np.round(value) if is_whole else value
    elif step:
        count = round((searched.high - low) / step) + 1
        value = low + np.floor(position * count) * step
    else:
        value = low + position * (searched.high - low)
    return np.clip(value, low, searched.high)
