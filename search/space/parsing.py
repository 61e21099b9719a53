"""The sections of a space file, each checked against the knobs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

from search.space import distributions, recommended
from search.space.budget import KEYS as BUDGET_KEYS
from search.space.distributions import FloatRange, IntRange, Range
from search.space.errors import Location, shown
from search.space.knobs import Knob, check, check_keys
from search.space.overrides import SECTIONS

_STUDY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}", re.ASCII)  # a folder's name that no shell or option mistakes


def homes(train: Iterable[str], data: Iterable[str]) -> dict[str, str]:
    """The section that each known key belongs to, for whoever puts it into another."""
    return {
        **dict.fromkeys(train, "train (to fix it) or search (to search it)"),
        **dict.fromkeys(data, "data"),
        **dict.fromkeys(BUDGET_KEYS, "budget"),
    }


def check_top(raw: Mapping[str, Any], root: Location, homes: Mapping[str, str]) -> None:
    check_keys(raw, SECTIONS, root, homes=homes)


def mapping(raw: Any, place: Location) -> dict[str, Any]:
    """A section's keys; one left empty has none."""
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        what = "a list" if isinstance(raw, list) else shown(raw)
        raise place.error(f"{what} where a mapping belongs; write lines of the form `key: value` below it")
    return raw


def study(raw: Any, place: Location, source: str | None) -> str:
    """A name that is safe as a folder's."""
    if raw is None:
        stem = re.sub(r"[^A-Za-z0-9._-]", "", PurePath(source or "").stem)
        raise place.error(f"missing; name the study, such as study: {stem or 'mine'}")
    if not isinstance(raw, str):
        raise place.error(f"{shown(raw)} is not text; give a name in quotes, or one that begins with a letter")
    if not _STUDY.fullmatch(raw):
        raise place.error(
            f"{shown(raw)} cannot name a study; use at most 64 letters, digits, dots, dashes and underscores, "
            "beginning with a letter, a digit or an underscore"
        )
    return raw


def data(
    raw: Mapping[str, Any], knobs: Mapping[str, Knob], place: Location, homes: Mapping[str, str]
) -> dict[str, Any]:
    """The data section, with `dataset`."""
    check_keys(raw, list(knobs), place, homes={name: home for name, home in homes.items() if name not in knobs})
    for name, knob in knobs.items():
        if name not in raw and knob.default is None and not knob.optional:
            raise place.at(name).error(f"missing; give the {knob.help}")
    return {name: check(knob, raw[name], place.at(name)) for name, knob in knobs.items() if name in raw}


def fixed(
    raw: Mapping[str, Any], knobs: Mapping[str, Knob], place: Location, homes: Mapping[str, str]
) -> dict[str, Any]:
    """The knobs held fixed."""
    check_keys(raw, list(knobs), place, "knob", _elsewhere(homes, knobs))
    for name, value in raw.items():
        if isinstance(value, list | dict):
            raise place.at(name).error("several values; move it to search, or give one value")
    return {name: check(knob, raw[name], place.at(name)) for name, knob in knobs.items() if name in raw}


def search(
    raw: Mapping[str, Any], knobs: Mapping[str, Knob], place: Location, homes: Mapping[str, str]
) -> dict[str, Range]:
    """The knobs searched; at least one."""
    check_keys(raw, list(knobs), place, "knob", _elsewhere(homes, knobs))
    if not raw:
        raise place.error("nothing to search; add a knob, such as learning_rate: {low: 1e-6, high: 5e-5, log: true}")
    for name in raw:
        if knobs[name].fixed_per_study:
            raise place.at(name).error(
                "is one for a whole study, since results found with two of it do not compare; put it under train"
            )
    return {name: distributions.parse(knob, raw[name], place.at(name)) for name, knob in knobs.items() if name in raw}


def _elsewhere(homes: Mapping[str, str], knobs: Mapping[str, Knob]) -> dict[str, str]:
    return {name: home for name, home in homes.items() if name not in knobs}


def check_keys_of(names: Iterable[str], knobs: Mapping[str, Knob], place: Location) -> None:
    """Raises a UserError for a name that is no knob's, or the budget's."""
    legal = [name for name in knobs if name not in BUDGET_KEYS]
    check_keys(dict.fromkeys(names), legal, place, "knob", dict.fromkeys(BUDGET_KEYS, "budget"))


def check_together(
    train: Mapping[str, Any], search: Mapping[str, Range], max_steps: int, knobs: Mapping[str, Knob], root: Location
) -> None:
    """What only shows between sections: a knob in two of them, steps past the budget, a factor without a centre."""
    for name in search:
        if name in train:
            raise root.at("train").at(name).error("is also under search; keep it in one of the two")
    for name, value in {**train, **search}.items():
        least = value.low if isinstance(value, FloatRange | IntRange) else value
        if name.endswith("_steps") and isinstance(least, int) and least > max_steps:
            section = root.at("search" if name in search else "train")
            end = ".low" if name in search else ""
            raise section.at(f"{name}{end}").error(f"{least} is past budget.max_steps, {max_steps}; lower it")
    for name, one in search.items():
        if recommended.is_factor(one):
            recommended.check(name, train, search, knobs, root.at("search").at(name))


def start(
    raw: Any, train: Mapping[str, Any], search: Mapping[str, Range], knobs: Mapping[str, Knob], place: Location
) -> tuple[dict[str, Any], ...]:
    """The configurations to try first, in absolute values; each must be one that the ranges can give."""
    if raw is None:
        return ()
    if not isinstance(raw, list):
        what = "a mapping" if isinstance(raw, dict) else shown(raw)
        raise place.error(f"{what} where a list belongs; put `- ` before each entry")
    entries = []
    for number, item in enumerate(raw):
        here = place.at(number)
        if not isinstance(item, dict) or not item:
            raise here.error("no values; give at least one searched knob, such as {learning_rate: 1e-5}")
        check_keys_of(item, knobs, here)
        entry = {name: check(knob, item[name], here.at(name)) for name, knob in knobs.items() if name in item}
        drawn(entry, train, search, knobs, here)
        entries.append(entry)
    return tuple(entries)


def drawn(
    entry: Mapping[str, Any],
    train: Mapping[str, Any],
    search: Mapping[str, Range],
    knobs: Mapping[str, Knob],
    place: Location,
) -> dict[str, Any]:
    """The values to draw for an entry's absolute ones; see Space.drawn_from_start."""
    found = {}
    for name, value in entry.items():
        here, one = place.at(name), search.get(name)
        if one is None:
            raise here.error("is not searched; take it out of the entry, or put it under search")
        if recommended.is_factor(one):
            depends = recommended.check(name, train, search, knobs, place)
            missing = sorted(depends - set(entry))
            if missing:
                raise here.error(f"its factor depends on {', '.join(missing)}; add it to the entry")
            value = value / recommended.centre(knobs[name], {**train, **entry}, knobs)
        found[name] = distributions.inside(one, value, here)
    return found
