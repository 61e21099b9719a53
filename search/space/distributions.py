"""What may be drawn for one knob: a range of numbers or a list of choices."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any, TypeAlias

from search.space.errors import Location, shown
from search.space.knobs import Knob, Limits, check, check_keys, same

RECOMMENDED = "recommended"  # the one legal value of `times`
_MOST_STEPS = 1_000_000  # values on a stepped range; Optuna lists them in places
_EDGE = 1e-9  # relative: how far rounding may put a start value past an end of its range


@dataclass(frozen=True)
class FloatRange:
    """low <= value <= high. With `times`, the value is a factor on what the knob recommends."""

    low: float
    high: float
    log: bool = False
    step: float | None = None
    times: str | None = None


@dataclass(frozen=True)
class IntRange:
    """low <= value <= high, in steps of `step` (1 where it is None)."""

    low: int
    high: int
    log: bool = False
    step: int | None = None


@dataclass(frozen=True)
class Choice:
    """One of `values`."""

    values: tuple[Any, ...]


Range: TypeAlias = FloatRange | IntRange | Choice


def parse(knob: Knob, raw: Any, place: Location) -> Range:
    """The range that a file's `raw` value describes; a UserError at `place` or below it if it suits no range."""
    if isinstance(raw, list):
        return _choice(knob, raw, place)
    if isinstance(raw, dict):
        return _numbers(knob, raw, place)
    what = "no value" if raw is None else f"{shown(raw)} is one value"
    raise place.error(f"{what}; give a list or {{low: , high: }} to search it, or fix it under train")


def to_json(one: Range) -> dict[str, Any]:
    """As the space file has it, and `kind`, which tells a whole float from an int; defaults left out."""
    if isinstance(one, Choice):
        return {"kind": "choice", "values": list(one.values)}
    kind = "int" if isinstance(one, IntRange) else "float"
    kept = {key: value for key, value in asdict(one).items() if value is not None and value is not False}
    return {"kind": kind, **kept}


def from_json(raw: Mapping[str, Any]) -> Range:
    """The inverse of to_json."""
    given = {key: value for key, value in raw.items() if key != "kind"}
    if raw["kind"] == "choice":
        return Choice(tuple(given["values"]))
    number = int if raw["kind"] == "int" else float
    for key in ("low", "high", "step"):
        if key in given:
            given[key] = number(given[key])
    return IntRange(**given) if raw["kind"] == "int" else FloatRange(**given)


def inside(one: Range, value: Any, place: Location) -> Any:
    """A start entry's `value` as a drawn one; a UserError where the range cannot give it."""
    if isinstance(one, Choice):
        if not any(same(value, choice) for choice in one.values):
            legal = ", ".join(shown(choice) for choice in one.values)
            raise place.error(f"{shown(value)} is not among the choices {legal}; add it to them or take one of them")
        return value
    if value is None:
        raise place.error(f"null is outside of {one.low:g} to {one.high:g}; give a number")
    slack = _EDGE * max(abs(one.low), abs(one.high))
    if not one.low - slack <= value <= one.high + slack:
        factor = f", as a factor on the {RECOMMENDED} value," if getattr(one, "times", None) else ""
        raise place.error(
            f"{value:.6g}{factor} is outside of {one.low:g} to {one.high:g}; widen the range or change the value"
        )
    value = min(max(value, one.low), one.high)
    if one.step is not None:
        count = (value - one.low) / one.step
        if abs(count - round(count)) > 1e-8:
            raise place.error(f"{shown(value)} is not {one.low:g} plus a multiple of step {one.step:g}; change one")
    return value


def _choice(knob: Knob, raw: list[Any], place: Location) -> Choice:
    if not raw:
        raise place.error("an empty list; give at least one choice")
    values: list[Any] = []
    for number, item in enumerate(raw):
        value = check(knob, item, place.at(number))
        if any(same(value, other) for other in values):
            raise place.at(number).error(f"{shown(value)} is repeated; keep one of the two")
        values.append(value)
    return Choice(tuple(values))


def _numbers(knob: Knob, raw: dict[str, Any], place: Location) -> FloatRange | IntRange:
    check_keys(raw, ["low", "high", "log", "step", "times"], place)
    if not {int, float} & set(knob.kinds) or knob.choices is not None:
        raise place.error("has no range of numbers; give a list of choices")
    whole = float not in knob.kinds
    times = _times(knob, raw, place)
    kinds = (int,) if whole else (float,)
    low_limit, high_limit = (None, None) if times else (knob.low, knob.high)
    limits = Limits(knob.name, kinds, low=low_limit, high=high_limit)
    ends = {}
    for end in ("low", "high"):
        if end not in raw:
            raise place.at(end).error(f"missing; give the range's {end} end")
        ends[end] = check(limits, raw[end], place.at(end))
    low, high = ends["low"], ends["high"]
    log = check(Limits("log", (bool,)), raw.get("log", False), place.at("log"))
    step = None
    if raw.get("step") is not None:
        step = check(Limits("step", kinds), raw["step"], place.at("step"))
    _check_order(low, high, log, place, bool(times))
    if step is not None:
        _check_step(low, high, step, log, place)
    return IntRange(low, high, log, step) if whole else FloatRange(low, high, log, step, times)


def _times(knob: Knob, raw: dict[str, Any], place: Location) -> str | None:
    if raw.get("times") is None:
        return None
    times = str(check(Limits("times", (str,), choices=(RECOMMENDED,)), raw["times"], place.at("times")))
    if knob.recommended is None:
        raise place.at("times").error(f"no recommended value is known for {knob.name}; give low and high themselves")
    return times


def _check_order(low: float, high: float, log: bool, place: Location, factor: bool) -> None:
    if low > high:
        raise place.blame("high", "low").error(f"low {low:g} is above high {high:g}; swap them")
    if log and low <= 0:
        raise place.blame("log", "low").error(f"low is {low:g}, and log needs it above 0; raise low or remove log")
    if factor and low <= 0:
        raise place.at("low").error(f"{low:g} as a factor; give one above 0")


def _check_step(low: float, high: float, step: float, log: bool, place: Location) -> None:
    here = place.at("step")
    if step <= 0:
        raise here.error(f"{step:g} is not above 0; give a positive step or remove it")
    if log:
        raise here.error("step and log exclude each other; remove one")
    width, exact = Decimal(str(high)) - Decimal(str(low)), Decimal(str(step))
    if width / exact > _MOST_STEPS:
        raise here.error(f"{step:g} makes more than a million values; remove it")
    if width % exact:
        below = Decimal(str(low)) + math.floor(width / exact) * exact
        fix = f"make high {below} or {below + exact}" if below > low else "make step smaller"
        raise place.blame("low", "high", "step").error(f"low {low:g} plus steps of {step:g} never is {high:g}; {fix}")
