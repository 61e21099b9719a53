"""The sections of a space file: `--set KEY=VALUE` put into them, then each checked against the knobs."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from search.errors import LONGEST_NAME
from search.space import distributions, recommended, yaml_loader
from search.space.budget import KEYS as BUDGET_KEYS
from search.space.distributions import Choice, FloatRange, IntRange, Range
from search.space.errors import Location, kind_of, printable, shortened, shown, suggestion
from search.space.knobs import Knob, check, check_keys

SECTIONS = ("study", "data", "budget", "train", "search", "start")
# A folder's name that no shell or option mistakes.
_STUDY = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9._-]{{0,{LONGEST_NAME - 1}}}", re.ASCII)


def apply_overrides(
    raw: dict[str, Any], overrides: Sequence[str], train: Collection[str], data: Collection[str]
) -> dict[str, str]:
    """Changes `raw`, a file's mapping, in place by KEY=VALUE texts; later ones after earlier ones.

    A bare knob name fixes the knob: it goes into `train` and leaves `search` and the start entries. A range under
    `search` takes the knob out of `train`.

    Returns:
        What was typed for each key, by its dotted path.
    """
    typed: dict[str, str] = {}
    for override in overrides:
        text, equals, value = override.partition("=")
        name = text.strip()
        shown_name = printable(shortened(name))
        location = Location(f"--set {shown_name}" if name else f"--set {shortened(override)!r}")
        if not equals or not name:
            raise location.error("no KEY=VALUE; write it as in --set learning_rate=1e-5")
        path = _override_path(name, train, data, location)
        _put(raw, path, yaml_loader.parse(value, location.source), location)
        if path[0] == "train" and len(path) == 2:
            _unsearch(raw, path[1])
        if path[0] == "search" and len(path) > 1 and isinstance(raw.get("train"), dict):
            raw["train"].pop(path[1], None)
        typed[".".join(path)] = shown_name
    return typed


def _override_path(name: str, train: Collection[str], data: Collection[str], location: Location) -> list[str]:
    path = name.split(".")
    if path[0] in SECTIONS:
        if not all(path):
            raise location.error("an empty name between dots; write SECTION.KEY")
        return path
    if name in train and name not in BUDGET_KEYS:
        return ["train", name]
    for section, names in (("budget", BUDGET_KEYS), ("data", data)):
        if name in names:
            raise location.error(f"belongs to {section}; say --set {section}.{name}=VALUE")
    raise location.error(f"no such key; {suggestion(name, [*_tunable(train), *SECTIONS])}")


def _tunable(train: Iterable[str]) -> list[str]:
    """Names of knobs that do not belong to the budget."""
    return [name for name in train if name not in BUDGET_KEYS]


def _put(raw: dict[str, Any], path: list[str], value: Any, location: Location) -> None:
    target: Any = raw
    for depth, name in enumerate(path[:-1], start=1):
        if target.get(name) is None:
            target[name] = {}
        target = target[name]
        if not isinstance(target, dict):
            key = printable(".".join(path[:depth]))
            raise location.error(f"{key} has no keys of its own; give it as one value: --set {key}=VALUE")
    target[path[-1]] = value


def _unsearch(raw: dict[str, Any], name: str) -> None:
    """Takes the knob out of `search` and of the start entries; an entry that held nothing else goes."""
    if isinstance(raw.get("search"), dict):
        raw["search"].pop(name, None)
    if not isinstance(raw.get("start"), list):
        return
    entries = []
    for entry in raw["start"]:
        if isinstance(entry, dict):
            if set(entry) == {name}:
                continue
            entry.pop(name, None)
        entries.append(entry)
    raw["start"] = entries


def sections_of_keys(train: Iterable[str], data: Iterable[str]) -> dict[str, str]:
    """The section that each known key belongs to, for the error about a key in another section."""
    return {
        **dict.fromkeys(train, "train (to fix it) or search (to search it)"),
        **dict.fromkeys(data, "data"),
        **dict.fromkeys(BUDGET_KEYS, "budget"),
    }


def parse_mapping(raw: Any, location: Location) -> dict[str, Any]:
    """A section's keys; an empty section has none."""
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise location.error(f"{kind_of(raw)} where a mapping belongs; write lines of the form `key: value` below it")
    return raw


def parse_study(raw: Any, location: Location, source: str | None) -> str:
    """The study's name, checked to be safe as a folder's; `source` is the file, which suggests one."""
    if raw is None:
        stem = re.sub(r"[^A-Za-z0-9._-]", "", PurePath(source or "").stem)
        raise location.error(f"missing; name the study, such as study: {stem or 'mine'}")
    if not isinstance(raw, str):
        raise location.error(f"{shown(raw)} is not text; give a name in quotes, or one that starts with a letter")
    if not _STUDY.fullmatch(raw):
        raise location.error(
            f"{shown(raw)} cannot name a study; use at most {LONGEST_NAME} letters, digits, dots, dashes and "
            "underscores, the first a letter, a digit or an underscore"
        )
    return raw


def parse_data(
    raw: Mapping[str, Any], knobs: Mapping[str, Knob], location: Location, homes: Mapping[str, str]
) -> dict[str, Any]:
    """The data section, checked; `homes` is what sections_of_keys gives."""
    check_keys(raw, list(knobs), location, homes=homes)
    for name, knob in knobs.items():
        if name not in raw and knob.is_required:
            raise location.at(name).error(f"missing; give the {knob.help}")
    return _checked_values(raw, knobs, location)


def parse_fixed(
    raw: Mapping[str, Any], knobs: Mapping[str, Knob], location: Location, homes: Mapping[str, str]
) -> dict[str, Any]:
    """The knobs held fixed."""
    check_keys(raw, list(knobs), location, "knob", homes)
    for name, value in raw.items():
        if isinstance(value, list | dict):
            raise location.at(name).error("several values; move it to search, or give one value")
    return _checked_values(raw, knobs, location)


def parse_search(
    raw: Mapping[str, Any], knobs: Mapping[str, Knob], location: Location, homes: Mapping[str, str]
) -> dict[str, Range]:
    """The ranges of the searched knobs; at least one."""
    check_keys(raw, list(knobs), location, "knob", homes)
    if not raw:
        raise location.error("nothing to search; add a knob, such as learning_rate: {low: 1e-6, high: 5e-5, log: true}")
    for name in raw:
        if knobs[name].fixed_per_study:
            raise location.at(name).error(
                "has one value for a whole study, since results with different ones do not compare; put it under train"
            )
    search = {}
    for name, knob in knobs.items():
        if name in raw:
            search[name] = distributions.parse(knob, raw[name], location.at(name))
    return search


def _checked_values(raw: Mapping[str, Any], knobs: Mapping[str, Knob], location: Location) -> dict[str, Any]:
    """The given values in the knobs' order and types."""
    checked = {}
    for name, knob in knobs.items():
        if name in raw:
            checked[name] = check(knob, raw[name], location.at(name))
    return checked


def check_knob_names(names: Iterable[str], knobs: Mapping[str, Knob], location: Location) -> None:
    """Raises a UserError for a name that is no knob's, or belongs to the budget."""
    check_keys(dict.fromkeys(names), _tunable(knobs), location, "knob", dict.fromkeys(BUDGET_KEYS, "budget"))


def check_searched(name: str, searched: Sequence[str], knobs: Mapping[str, Knob], location: Location) -> None:
    """Raises a UserError for a name that is not of a searched knob; it names those that are."""
    if name in searched:
        return
    here = location.at(name)
    if name in knobs or name in BUDGET_KEYS:
        raise here.error(f"is not searched; searched: {', '.join(searched)}")
    raise here.error(f"no such knob; {suggestion(name, searched, 'searched')}")


def check_together(
    train: Mapping[str, Any], search: Mapping[str, Range], max_steps: int, knobs: Mapping[str, Knob], root: Location
) -> None:
    """Mistakes between sections: a knob in two of them, steps past the budget, a factor without a center."""
    for name in search:
        if name in train:
            raise root.at("train").at(name).error("is also under search; keep it in one of the two")
    for name, value in {**train, **search}.items():
        if is_within_budget(name):
            _check_within_budget(name, value, max_steps, root.at("search" if name in search else "train"))
    for name, searched in search.items():
        if recommended.is_factor(searched):
            recommended.check(name, train, search, knobs, root.at("search").at(name))


def is_within_budget(name: str) -> bool:
    """Whether a knob counts optimizer steps that a training must reach, such as warmup_steps."""
    return name.endswith("_steps") and name not in BUDGET_KEYS


def _check_within_budget(name: str, value: Any, max_steps: int, section: Location) -> None:
    """Refuse steps that no training of `max_steps` reaches."""
    least = value
    key = name
    if isinstance(value, FloatRange | IntRange):
        least = value.low
        key = f"{name}.low"
    elif isinstance(value, Choice):
        least = min(value.values)
    if isinstance(least, int) and least > max_steps:
        raise section.at(key).error(f"{least} is past budget.max_steps, {max_steps}; lower it")


def parse_start(
    raw: Any, train: Mapping[str, Any], search: Mapping[str, Range], knobs: Mapping[str, Knob], location: Location
) -> tuple[dict[str, Any], ...]:
    """The configurations to try first, in absolute values that the ranges can give."""
    if raw is None:
        return ()
    if not isinstance(raw, list):
        raise location.error(f"{kind_of(raw)} where a list belongs; put `- ` before each entry")
    entries = []
    for number, item in enumerate(raw):
        here = location.at(number)
        if not isinstance(item, dict) or not item:
            raise here.error("no values; give at least one searched knob, such as {learning_rate: 1e-5}")
        check_knob_names(item, knobs, here)
        entry = _checked_values(item, knobs, here)
        drawn_values(entry, train, search, knobs, here)
        entries.append(entry)
    return tuple(entries)


def drawn_values(
    entry: Mapping[str, Any],
    train: Mapping[str, Any],
    search: Mapping[str, Range],
    knobs: Mapping[str, Knob],
    location: Location,
) -> dict[str, Any]:
    """The values to draw for an entry's absolute ones; see Space.drawn_from_start."""
    drawn = {}
    for name, value in entry.items():
        here = location.at(name)
        if name not in search:
            raise here.error("is not searched; take it out of the entry, or put it under search")
        if recommended.is_factor(search[name]):
            depends = recommended.check(name, train, search, knobs, location)
            missing = sorted(depends - set(entry))
            if missing:
                raise here.error(f"its factor depends on {', '.join(missing)}; add it to the entry")
            value = value / recommended.center(knobs[name], {**train, **entry}, knobs)
        drawn[name] = distributions.inside(search[name], value, here)
    return drawn
