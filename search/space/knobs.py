"""What a knob is to the engine, and whether a person's value suits it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from search.space.errors import Location, shown, suggestion

# YAML 1.1's other spellings, for knobs that are true or false; a knob of text keeps them as text (no: Norwegian).
_SPELLINGS = {"yes": True, "on": True, "true": True, "no": False, "off": False, "false": False}
_MOST = 2**63 - 1  # what databases hold as an integer


class Knob(Protocol):
    """A legal key: its types, whether it may be null, inclusive bounds, choices, and its recommended centre."""

    @property
    def name(self) -> str: ...
    @property
    def kinds(self) -> tuple[type, ...]: ...
    @property
    def optional(self) -> bool: ...
    @property
    def default(self) -> Any: ...
    @property
    def help(self) -> str: ...
    @property
    def low(self) -> float | None: ...
    @property
    def high(self) -> float | None: ...
    @property
    def choices(self) -> tuple[Any, ...] | None: ...
    @property
    def recommended(self) -> Callable[[Mapping[str, Any]], float] | None: ...
    @property
    def fixed_per_study(self) -> bool: ...  # what values are measured with: two of them do not compare


@dataclass(frozen=True)
class Limits:
    """A Knob of the engine's own, such as budget.max_steps."""

    name: str
    kinds: tuple[type, ...]
    optional: bool = False
    default: Any = None
    help: str = ""
    low: float | None = None
    high: float | None = None
    choices: tuple[Any, ...] | None = None
    recommended: Callable[[Mapping[str, Any]], float] | None = None
    fixed_per_study: bool = False


def same(one: Any, other: Any) -> bool:
    """Equal and of one type: 1, 1.0 and true are three values."""
    return type(one) is type(other) and bool(one == other)


def check(knob: Knob, value: Any, place: Location) -> Any:
    """`value` as the knob's own type, or a UserError at `place`. Whole floats and numbers in text become numbers."""
    if value is None:
        if knob.optional:
            return None
        raise place.error(f"no value; give {_expected(knob)}")
    if isinstance(value, list | dict):
        what = "a list" if isinstance(value, list) else "a mapping"
        raise place.error(f"{what} where one value belongs; give {_expected(knob)}")
    converted = _converted(knob, value, place)
    if knob.choices is not None and not any(same(converted, choice) for choice in knob.choices):
        legal = [shown(choice) for choice in knob.choices]
        raise place.error(f"{shown(value)} is not one of {', '.join(legal)}; {suggestion(shown(value), legal)}")
    if isinstance(converted, int | float) and not isinstance(converted, bool):
        _check_limits(knob, converted, place)
    return converted


def check_keys(
    given: Mapping[str, Any],
    legal: Sequence[str],
    place: Location,
    what: str = "key",
    homes: Mapping[str, str] | None = None,
) -> None:
    """Raises a UserError at the first key of `given` that is not legal; `homes` says where known keys belong."""
    for key in given:
        if key in legal:
            continue
        if homes and key in homes:
            raise place.at(key).error(f"belongs under {homes[key]}; move it there")
        hint = "write a space after the colon" if ":" in key else suggestion(key, legal)
        raise place.at(key).error(f"no such {what}; {hint}")


def _expected(knob: Knob) -> str:
    if knob.choices is not None:
        return "one of " + ", ".join(shown(choice) for choice in knob.choices)
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    kinds = [kind for kind in knob.kinds if not (kind is int and float in knob.kinds)]
    return " or ".join(words.get(kind, kind.__name__) for kind in kinds)


def _converted(knob: Knob, value: Any, place: Location) -> Any:
    if isinstance(value, bool):
        if bool in knob.kinds:
            return value
        if str in knob.kinds:
            raise place.error(f"{shown(value)} is read as true or false; give {_expected(knob)}, in quotes")
        raise place.error(f"{shown(value)} is not a number; give {_expected(knob)}")
    if isinstance(value, str):
        return _from_text(knob, value, place)
    if int in knob.kinds or float in knob.kinds:
        return _number(knob, value, place)
    if str in knob.kinds:
        raise place.error(f"{shown(value)} is read as a number; put it in quotes to make it text")
    raise place.error(f"{shown(value)} is a number; give {_expected(knob)}")


def _from_text(knob: Knob, text: str, place: Location) -> Any:
    if bool in knob.kinds and text.lower() in _SPELLINGS and text not in (knob.choices or ()):
        return _SPELLINGS[text.lower()]
    if str in knob.kinds:
        if not text.strip() or not text.isprintable():
            what = "has characters that cannot be shown" if text.strip() else "is empty"
            raise place.error(f"the text {what}; give {_expected(knob)}")
        return text
    if int in knob.kinds or float in knob.kinds:
        return _number(knob, _parsed(text, place, knob), place)
    raise place.error(f"{shown(text)} is text; give {_expected(knob)}")


def _parsed(text: str, place: Location, knob: Knob) -> int | float:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        raise place.error(f"{shown(text)} is not a number; give {_expected(knob)}") from None


def _number(knob: Knob, value: int | float, place: Location) -> int | float:
    if isinstance(value, float) and not math.isfinite(value):
        raise place.error(f"{shown(value)} is not finite; give {_expected(knob)}")
    if float in knob.kinds and (int not in knob.kinds or isinstance(value, float)):
        try:
            return float(value)
        except OverflowError:
            raise place.error(f"{shown(value)} is too large; give {_expected(knob)}") from None
    if isinstance(value, float) and not value.is_integer():
        raise place.error(f"{shown(value)} where a whole number belongs; say {math.floor(value)} or {math.ceil(value)}")
    if abs(value) > _MOST:
        raise place.error(f"{shown(value)} is too large; give {_expected(knob)}")
    return int(value)


def _check_limits(knob: Knob, value: int | float, place: Location) -> None:
    if knob.low is not None and value < knob.low:
        raise place.error(f"{shown(value)} is too low; the least that {knob.name} takes is {shown(knob.low)}")
    if knob.high is not None and value > knob.high:
        raise place.error(f"{shown(value)} is too high; the most that {knob.name} takes is {shown(knob.high)}")
