"""Factors on a knob's recommended value: what they stand for, checked for every model before the first trial."""

from __future__ import annotations

import functools
import itertools
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from search.space.distributions import Choice, FloatRange, Range
from search.space.errors import Location, printable, shown
from search.space.knobs import Knob

_MOST_COMBINATIONS = 10_000
_T = TypeVar("_T")


class _RecordedReads(dict[str, Any]):
    """Parameters that remember which of them were read."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self.read.add(name)
        return super().__getitem__(name)

    def __contains__(self, name: object) -> bool:
        self.read.add(str(name))
        return super().__contains__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self.read.add(name)
        return super().get(name, default)


def is_factor(searched: Range) -> bool:
    """Whether it gives factors on a recommended value."""
    return isinstance(searched, FloatRange) and searched.times is not None


def center(knob: Knob, params: Mapping[str, Any], knobs: Mapping[str, Knob]) -> float:
    """The knob's recommended value for `params`, defaults for what they leave out. Raises what the knob raises."""
    assert knob.recommended is not None
    return knob.recommended({**_defaults(knobs), **params})


def center_if_known(knob: Knob, params: Mapping[str, Any], knobs: Mapping[str, Knob]) -> float | None:
    """As `center`; None where the knob recommends no usable value."""
    return _usable(knob, {**_defaults(knobs), **params})


def _usable(knob: Knob, params: Mapping[str, Any]) -> float | None:
    assert knob.recommended is not None
    try:
        value = float(knob.recommended(params))
    except Exception:  # the knob's own function, reading a person's model: whatever it raises, no value is known
        return None
    return value if 0 < value < math.inf else None


def centers(
    name: str, fixed: Mapping[str, Any], search: Mapping[str, Range], knobs: Mapping[str, Knob]
) -> tuple[tuple[str, ...], dict[tuple[Any, ...], float]] | None:
    """The searched knobs that the center of `name` depends on, sorted, and the center by their values.

    None where a center is not known, or depends on a range of numbers.
    """
    depends, usable = _explored(name, {**_defaults(knobs), **fixed}, search, functools.partial(_usable, knobs[name]))
    if not all(isinstance(search[key], Choice) for key in depends):
        return None
    known: dict[tuple[Any, ...], float] = {}
    for values, value in usable:
        if value is None:
            return None
        known[tuple(values[key] for key in sorted(depends))] = value
    return tuple(sorted(depends)), known


def absolute(factor: float, center: float) -> float:
    """factor * center to 12 digits, so that a start value is read back as it was written."""
    return float(f"{factor * center:.12g}")


def check(
    name: str, fixed: Mapping[str, Any], search: Mapping[str, Range], knobs: Mapping[str, Knob], location: Location
) -> frozenset[str]:
    """The searched knobs that the center of `name` depends on.

    Asks for the center at every combination of them; a range is represented by its ends.

    Raises:
        UserError: at `location`, where there is no center, or a factor on it leaves the knob's own limits.
    """

    def look(params: _RecordedReads) -> None:
        _check_at(knobs[name], params, search, location)

    return _explored(name, {**_defaults(knobs), **fixed}, search, look)[0]


def _explored(
    name: str, base: Mapping[str, Any], search: Mapping[str, Range], look: Callable[[_RecordedReads], _T]
) -> tuple[frozenset[str], list[tuple[dict[str, Any], _T]]]:
    """The searched knobs that `look` reads for `name`, and what it makes of every combination of them.

    A range is represented by its ends.
    """
    depends: frozenset[str] = frozenset()
    while True:
        read: set[str] = set()
        looked = []
        for values in _combinations(base, search, depends):
            params = _RecordedReads(values)
            looked.append((values, look(params)))
            read |= params.read
        reads = frozenset(read & set(search)) - {name}
        if reads <= depends:
            return depends, looked
        depends |= reads


def _defaults(knobs: Mapping[str, Knob]) -> dict[str, Any]:
    return {name: knob.default for name, knob in knobs.items()}


def _combinations(
    base: Mapping[str, Any], search: Mapping[str, Range], depends: frozenset[str]
) -> Iterator[dict[str, Any]]:
    """`base` with every combination of the candidates of the knobs in `depends`; others at their first candidate."""
    first = {name: _candidates(searched)[0] for name, searched in search.items()}
    names = sorted(depends)
    products = itertools.product(*(_candidates(search[name]) for name in names))
    for values in itertools.islice(products, _MOST_COMBINATIONS):
        yield {**base, **first, **dict(zip(names, values, strict=True))}


def _candidates(searched: Range) -> tuple[Any, ...]:
    return searched.values if isinstance(searched, Choice) else (searched.low, searched.high)


def _check_at(knob: Knob, params: _RecordedReads, search: Mapping[str, Range], location: Location) -> None:
    searched = search[knob.name]
    assert isinstance(searched, FloatRange)
    assert knob.recommended is not None
    try:
        center = float(knob.recommended(params))
    except Exception as error:  # the knob's own function, reading a person's model: whatever it raises is about that
        why = printable(str(error)) or type(error).__name__
        raise location.at("times").error(why) from None
    if not 0 < center < math.inf:
        raise location.at("times").error(f"the recommended value is {center:g}; give low and high themselves")
    low = -math.inf if knob.low is None else knob.low
    high = sys.float_info.max if knob.high is None else knob.high
    for end, factor in (("low", searched.low), ("high", searched.high)):
        value = absolute(factor, center)
        if low <= value <= high:
            continue
        reads = [f"{name} {shown(params[name])}" for name in sorted(params.read & set(search))]
        condition = f" for {', '.join(reads)}" if reads else ""
        raise location.at(end).error(
            f"{factor:g} times the recommended {center:g}{condition} is {value:g}; "
            f"{knob.name} takes {low:g} to {high:g}: change the factor"
        )
