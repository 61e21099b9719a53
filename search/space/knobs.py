"""The knob: a legal key with its type and limits, and whether a person's value suits it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from search.space.errors import Location, kind_of, shown, suggestion

# YAML 1.1's other spellings, for knobs that are true or false; a knob of text keeps them as text (no: Norwegian).
_SPELLINGS = {"yes": True, "on": True, "true": True, "no": False, "off": False, "false": False}
_LARGEST_INTEGER = 2**63 - 1  # what databases hold
_KIND_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


@dataclass(frozen=True)
class Knob:
    """A legal key of a space file.

    Attributes:
        kinds: the types that its value may have.
        optional: whether it may be null.
        help: what it is, in a few words with its unit.
        low, high: inclusive bounds of a number.
        recommended: its recommended value, given the values of all knobs by name; raises an error of its own where
            none is known.
        canonical: the name that a value is kept by, for values with several names; raises ValueError, whose text is the
            fix, for a value that is none.
        fixed_per_study: results with two values of it do not compare, so it cannot be searched.
        items: the keys of each item of a list of mappings, for a knob whose value is such a list.
    """

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
    canonical: Callable[[Any], Any] | None = None
    items: Mapping[str, Knob] | None = None

    @property
    def is_required(self) -> bool:
        """Whether there is no configuration without a value of it."""
        return self.default is None and not self.optional


def same(first: Any, second: Any) -> bool:
    """Equal and of one type: 1, 1.0 and true are three values."""
    return type(first) is type(second) and bool(first == second)


def is_among(value: Any, choices: Iterable[Any]) -> bool:
    """Whether one of `choices` is the same value."""
    return any(same(value, choice) for choice in choices)


def check(knob: Knob, value: Any, location: Location) -> Any:
    """`value` as the knob's own type; whole floats and numbers in text become numbers.

    Raises:
        UserError: at `location` or below it, if the value does not suit the knob.
    """
    if knob.items is not None:
        return _checked_items(knob.items, value, location)
    if value is None:
        if knob.optional:
            return None
        raise location.error(f"no value; give {_expected(knob)}")
    if isinstance(value, list | dict):
        raise location.error(f"{kind_of(value)} where one value belongs; give {_expected(knob)}")
    converted = _converted(knob, value, location)
    if knob.choices is not None and not is_among(converted, knob.choices):
        legal = list(map(shown, knob.choices))
        raise location.error(f"{shown(value)} is not one of {', '.join(legal)}; {suggestion(shown(value), legal)}")
    if isinstance(converted, int | float) and not isinstance(converted, bool):
        _check_limits(knob, converted, location)
    return _by_its_name(knob, converted, location)


def _checked_items(keys: Mapping[str, Knob], value: Any, location: Location) -> list[dict[str, Any]]:
    """A list of mappings with these keys, each value checked."""
    if not isinstance(value, list | tuple):
        required = ", ".join(f"{name}: ..." for name, knob in keys.items() if knob.is_required)
        raise location.error(f"{kind_of(value)} where a list of mappings belongs; write [{{{required}}}]")
    checked = []
    for number, item in enumerate(value):
        here = location.at(number)
        if not isinstance(item, dict):
            raise here.error(f"{kind_of(item)} where a mapping belongs; its keys are {', '.join(keys)}")
        check_keys(item, list(keys), here)
        for name, knob in keys.items():
            if name not in item and knob.is_required:
                raise here.at(name).error(f"missing; give the {knob.help}")
        checked.append({name: check(knob, item[name], here.at(name)) for name, knob in keys.items() if name in item})
    return checked


def check_keys(
    given: Mapping[str, Any],
    legal: Sequence[str],
    location: Location,
    what: str = "key",
    homes: Mapping[str, str] | None = None,
) -> None:
    """Raises a UserError at the first key of `given` that is not legal; `homes` says where known keys belong."""
    for key in given:
        if key in legal:
            continue
        if homes and key in homes:
            raise location.at(key).error(f"belongs under {homes[key]}; move it there")
        hint = "write a space after the colon" if ":" in key else suggestion(key, legal)
        raise location.at(key).error(f"no such {what}; {hint}")


def _expected(knob: Knob) -> str:
    if knob.choices is not None:
        return "one of " + ", ".join(map(shown, knob.choices))
    kinds = [kind for kind in knob.kinds if not (kind is int and float in knob.kinds)]
    return " or ".join(_KIND_NAMES.get(kind, kind.__name__) for kind in kinds)


def _converted(knob: Knob, value: Any, location: Location) -> Any:
    if isinstance(value, bool):
        if bool in knob.kinds:
            return value
        if str in knob.kinds:
            raise location.error(f"{shown(value)} is read as true or false; give {_expected(knob)}, in quotes")
        raise location.error(f"{shown(value)} is not a number; give {_expected(knob)}")
    if isinstance(value, str):
        return _from_text(knob, value, location)
    if int in knob.kinds or float in knob.kinds:
        return _number(knob, value, location)
    if str in knob.kinds:
        raise location.error(f"{shown(value)} is read as a number; put it in quotes to make it text")
    raise location.error(f"{shown(value)} is a number; give {_expected(knob)}")


def _by_its_name(knob: Knob, value: Any, location: Location) -> Any:
    if knob.canonical is None:
        return value
    try:
        return knob.canonical(value)
    except ValueError as error:
        raise location.error(f"{shown(value)}: {error}") from None


def _from_text(knob: Knob, text: str, location: Location) -> Any:
    if bool in knob.kinds and text.lower() in _SPELLINGS and text not in (knob.choices or ()):
        return _SPELLINGS[text.lower()]
    if str in knob.kinds:
        if not text.strip():
            raise location.error(f"the text is empty; give {_expected(knob)}")
        if not text.isprintable():
            raise location.error(f"the text has characters that cannot be shown; give {_expected(knob)}")
        return text
    if int in knob.kinds or float in knob.kinds:
        return _number(knob, _parsed(knob, text, location), location)
    raise location.error(f"{shown(text)} is text; give {_expected(knob)}")


def _parsed(knob: Knob, text: str, location: Location) -> int | float:
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    raise location.error(f"{shown(text)} is not a number; give {_expected(knob)}")


def _number(knob: Knob, value: int | float, location: Location) -> int | float:
    if isinstance(value, float) and not math.isfinite(value):
        raise location.error(f"{shown(value)} is not finite; give {_expected(knob)}")
    if float in knob.kinds and (int not in knob.kinds or isinstance(value, float)):
        try:
            return float(value)
        except OverflowError:
            raise location.error(f"{shown(value)} is too large; give {_expected(knob)}") from None
    if isinstance(value, float) and not value.is_integer():
        near = f"{math.floor(value)} or {math.ceil(value)}"
        raise location.error(f"{shown(value)} where a whole number belongs; say {near}")
    if abs(value) > _LARGEST_INTEGER:
        raise location.error(f"{shown(value)} is too large; give {_expected(knob)}")
    return int(value)


def _check_limits(knob: Knob, value: int | float, location: Location) -> None:
    if knob.low is not None and value < knob.low:
        raise location.error(f"{shown(value)} is too low; the least that {knob.name} takes is {shown(knob.low)}")
    if knob.high is not None and value > knob.high:
        raise location.error(f"{shown(value)} is too high; the most that {knob.name} takes is {shown(knob.high)}")
