"""Factors on a knob's recommended value: what they stand for, checked for every model before the first trial."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from search.space.distributions import Choice, FloatRange, Range
from search.space.errors import Location, printable, shown
from search.space.knobs import Knob

_MOST_COMBINATIONS = 10_000


class _Watched(dict[str, Any]):
    """Parameters that remember which of them were asked for."""

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


def is_factor(one: Range) -> bool:
    return isinstance(one, FloatRange) and one.times is not None


def centre(knob: Knob, params: Mapping[str, Any], knobs: Mapping[str, Knob]) -> float:
    """The knob's recommended value for `params`; what they leave out has its default. Raises what the knob raises."""
    assert knob.recommended is not None
    return knob.recommended({**{name: one.default for name, one in knobs.items()}, **params})


def absolute(factor: float, middle: float) -> float:
    """factor * middle to 12 digits, so that a start value comes back as it was written."""
    return float(f"{factor * middle:.12g}")


def check(
    name: str, fixed: Mapping[str, Any], search: Mapping[str, Range], knobs: Mapping[str, Knob], place: Location
) -> frozenset[str]:
    """The searched knobs that the centre of `name` depends on.

    Asks for the centre at every combination of them (a range stands with its ends) and raises a UserError where
    there is none, or where a factor on it leaves the knob's own limits.
    """
    knob, one = knobs[name], search[name]
    assert isinstance(one, FloatRange)
    base = {**{other: each.default for other, each in knobs.items()}, **fixed}
    depends: frozenset[str] = frozenset()
    while True:
        seen: set[str] = set()
        for params in _combinations(base, search, depends):
            watched = _Watched(params)
            _check_at(knob, one, watched, search, place)
            seen |= watched.read
        found = frozenset(seen & set(search)) - {name}
        if found <= depends:
            return depends
        depends |= found


def _combinations(
    base: Mapping[str, Any], search: Mapping[str, Range], depends: frozenset[str]
) -> Iterator[dict[str, Any]]:
    """`base` with every combination of the candidates of the knobs in `depends`; others at their first candidate."""
    first = {name: _candidates(one)[0] for name, one in search.items()}
    names = sorted(depends)
    products = itertools.product(*(_candidates(search[name]) for name in names))
    for values in itertools.islice(products, _MOST_COMBINATIONS):
        yield {**base, **first, **dict(zip(names, values, strict=True))}


def _candidates(one: Range) -> tuple[Any, ...]:
    return one.values if isinstance(one, Choice) else (one.low, one.high)


def _check_at(knob: Knob, one: FloatRange, params: _Watched, search: Mapping[str, Range], place: Location) -> None:
    assert knob.recommended is not None
    try:
        middle = float(knob.recommended(params))
    except Exception as error:  # the knob's own function, reading a person's model: whatever it raises is about that
        why = printable(str(error)) or type(error).__name__
        raise place.at("times").error(why) from None
    if not 0 < middle < math.inf:
        raise place.at("times").error(f"the recommended value is {middle:g}; give low and high themselves")
    for end, factor in (("low", one.low), ("high", one.high)):
        value = absolute(factor, middle)
        least = -math.inf if knob.low is None else knob.low
        most = sys.float_info.max if knob.high is None else knob.high
        if not least <= value <= most:
            given = ", ".join(f"{name} {shown(params[name])}" for name in sorted(params.read & set(search)))
            raise place.at(end).error(
                f"{factor:g} times the recommended {middle:g}{f' for {given}' if given else ''} is {value:g}; "
                f"{knob.name} takes {least:g} to {most:g}: change the factor"
            )
