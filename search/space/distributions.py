"""What may be drawn for one knob: a range of numbers or a list of choices."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any, TypeAlias

from search.space.errors import Location, shown
from search.space.knobs import Knob, check, check_keys, is_among

RECOMMENDED = "recommended"  # the one legal value of `times`
_MOST_VALUES = 1_000_000  # values on a stepped range; Optuna lists them in places
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


def parse(knob: Knob, raw: Any, location: Location) -> Range:
    """The range that a file's `raw` value describes; a UserError at `location` or below it if it suits no range."""
    if isinstance(raw, list):
        return _choice(knob, raw, location)
    if isinstance(raw, dict):
        return _numbers(knob, raw, location)
    what = "no value" if raw is None else f"{shown(raw)} is one value"
    raise location.error(f"{what}; give a list or {{low: , high: }} to search it, or fix it under train")


def to_json(searched: Range) -> dict[str, Any]:
    """As the space file has it, and `kind`, which tells a whole float from an int; defaults left out."""
    if isinstance(searched, Choice):
        return {"kind": "choice", "values": list(searched.values)}
    kind = "int" if isinstance(searched, IntRange) else "float"
    given = {key: value for key, value in asdict(searched).items() if value is not None and value is not False}
    return {"kind": kind, **given}


def from_json(raw: Mapping[str, Any]) -> Range:
    """The inverse of to_json."""
    given = dict(raw)
    kind = given.pop("kind")
    if kind == "choice":
        return Choice(tuple(given["values"]))
    for key in ("low", "high", "step"):
        if key in given:
            given[key] = int(given[key]) if kind == "int" else float(given[key])
    return IntRange(**given) if kind == "int" else FloatRange(**given)


def inside(searched: Range, value: Any, location: Location) -> Any:
    """A start entry's `value` as a drawn one; a UserError at `location` if the range cannot give it."""
    if isinstance(searched, Choice):
        if not is_among(value, searched.values):
            legal = ", ".join(map(shown, searched.values))
            raise location.error(f"{shown(value)} is not among the choices {legal}; add it to them or take one of them")
        return value
    low = searched.low
    high = searched.high
    if value is None:
        raise location.error(f"null is outside of {low:g} to {high:g}; give a number")
    slack = _EDGE * max(abs(low), abs(high))
    if not low - slack <= value <= high + slack:
        factor = f", as a factor on the {RECOMMENDED} value," if getattr(searched, "times", None) else ""
        raise location.error(
            f"{value:.6g}{factor} is outside of {low:g} to {high:g}; widen the range or change the value"
        )
    value = min(max(value, low), high)
    if searched.step is not None:
        count = (value - low) / searched.step
        if abs(count - round(count)) > 1e-8:
            raise location.error(
                f"{shown(value)} is not {low:g} plus a multiple of step {searched.step:g}; change one of them"
            )
    return value


def _choice(knob: Knob, raw: list[Any], location: Location) -> Choice:
    if not raw:
        raise location.error("an empty list; give at least one choice")
    values: list[Any] = []
    for number, item in enumerate(raw):
        value = check(knob, item, location.at(number))
        if is_among(value, values):
            raise location.at(number).error(f"{shown(value)} is repeated; keep one of the two")
        values.append(value)
    return Choice(tuple(values))


def _numbers(knob: Knob, raw: dict[str, Any], location: Location) -> FloatRange | IntRange:
    check_keys(raw, ["low", "high", "log", "step", "times"], location)
    if not {int, float} & set(knob.kinds) or knob.choices is not None:
        raise location.error("has no range of numbers; give a list of choices")
    is_whole = float not in knob.kinds
    kinds: tuple[type, ...] = (int,) if is_whole else (float,)
    times = _times(knob, raw, location)
    # A factor is held against the knob's own limits once its recommended value is known: see recommended.py.
    end = Knob(knob.name, kinds) if times else Knob(knob.name, kinds, low=knob.low, high=knob.high)
    for key in ("low", "high"):
        if key not in raw:
            raise location.at(key).error(f"missing; give the range's {key} end")
    low = check(end, raw["low"], location.at("low"))
    high = check(end, raw["high"], location.at("high"))
    log = check(Knob("log", (bool,)), raw.get("log", False), location.at("log"))
    step = check(Knob("step", kinds, optional=True), raw.get("step"), location.at("step"))
    _check_order(low, high, log, location, bool(times))
    if step is not None:
        _check_step(low, high, step, log, location)
    return IntRange(low, high, log, step) if is_whole else FloatRange(low, high, log, step, times)


def _times(knob: Knob, raw: dict[str, Any], location: Location) -> str | None:
    if raw.get("times") is None:
        return None
    times = str(check(Knob("times", (str,), choices=(RECOMMENDED,)), raw["times"], location.at("times")))
    if knob.recommended is None:
        raise location.at("times").error(f"no recommended value is known for {knob.name}; give low and high themselves")
    return times


def _check_order(low: float, high: float, log: bool, location: Location, factor: bool) -> None:
    if low > high:
        raise location.blame("high", "low").error(f"low {low:g} is above high {high:g}; swap them")
    if log and low <= 0:
        raise location.blame("log", "low").error(f"low is {low:g}, and log needs it above 0; raise low or remove log")
    if factor and low <= 0:
        raise location.at("low").error(f"{low:g} as a factor; give one above 0")


def _check_step(low: float, high: float, step: float, log: bool, location: Location) -> None:
    here = location.at("step")
    if step <= 0:
        raise here.error(f"{step:g} is not above 0; give a positive step or remove it")
    if log:
        raise here.error("step and log exclude each other; remove one")
    width = Decimal(str(high)) - Decimal(str(low))
    exact = Decimal(str(step))
    if width / exact > _MOST_VALUES:
        raise here.error(f"{step:g} makes more than a million values; remove it")
    if width % exact:
        below = Decimal(str(low)) + math.floor(width / exact) * exact
        fix = f"make high {below} or {below + exact}" if below > low else "make step smaller"
        raise location.blame("low", "high", "step").error(
            f"low {low:g} plus steps of {step:g} never is {high:g}; {fix}"
        )
