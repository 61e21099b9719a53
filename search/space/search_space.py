"""YAML -> frozen Space; every error names file, key and the fix."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.errors import UserError
from search.space import budget as budgets
from search.space import distributions, overrides, parsing, recommended, yaml_loader
from search.space.budget import Budget
from search.space.distributions import Choice, FloatRange, IntRange, Range
from search.space.errors import Location, printable, shortened
from search.space.knobs import Knob, check
from search.space.overrides import SECTIONS

__all__ = ["Budget", "Choice", "FloatRange", "IntRange", "Knob", "Range", "Space"]
__all__ += ["check_study_name", "differences", "load", "values"]

_FORMAT = 1  # of the snapshot that to_json makes


@dataclass(frozen=True)
class Space:
    """What a study searches. Keys are in the knobs' order, whatever the file's: order must not change a search.

    `data` and `train` hold what the file gives, checked, in the knobs' own types. A `start` entry holds absolute
    values, also of a knob that is searched as a factor.
    """

    study: str
    data: Mapping[str, Any]
    budget: Budget
    train: Mapping[str, Any]
    search: Mapping[str, Range]
    start: tuple[Mapping[str, Any], ...]
    source: str

    def to_json(self) -> dict[str, Any]:
        """A snapshot of plain values, from which from_json makes an equal Space."""
        return {
            "format": _FORMAT,
            "study": self.study,
            "source": self.source,
            "data": dict(self.data),
            "budget": self.budget.to_json(),
            "train": dict(self.train),
            "search": {name: distributions.to_json(one) for name, one in self.search.items()},
            "start": [dict(entry) for entry in self.start],
        }

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Space:
        """The inverse of to_json; raises UserError for a snapshot of a newer program."""
        if raw.get("format") != _FORMAT:
            name = printable(shortened(str(raw.get("study"))))
            raise UserError(f"{name}: the study's space is of another version of tmsearch; use that version")
        return cls(
            study=raw["study"],
            data=dict(raw["data"]),
            budget=Budget.from_json(raw["budget"], raw["study"]),
            train=dict(raw["train"]),
            search={name: distributions.from_json(one) for name, one in raw["search"].items()},
            start=tuple(dict(entry) for entry in raw["start"]),
            source=raw["source"],
        )

    def fingerprint(self) -> str:
        """sha256, in hex, of everything that changes what a search does: not of the study's name nor the file's."""
        text = json.dumps(_flat(self), sort_keys=True, ensure_ascii=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def resolve(self, drawn: Mapping[str, Any], knobs: Mapping[str, Knob]) -> dict[str, Any]:
        """The fixed and the drawn values, by the knobs' names; a drawn factor has become the absolute value.

        `max_steps` is the budget's and not among them. Raises what a knob's `recommended` raises.
        """
        params = {**self.train, **drawn}
        resolved = dict(params)
        for name, one in self.search.items():
            if recommended.is_factor(one) and name in drawn:
                resolved[name] = recommended.absolute(drawn[name], recommended.centre(knobs[name], params, knobs))
        return resolved

    def drawn_from_start(
        self, entry: Mapping[str, Any], knobs: Mapping[str, Knob], place: Location | None = None
    ) -> dict[str, Any]:
        """The drawn values that give `entry`'s absolute ones: resolve() gives them back.

        Raises:
            UserError: at `place`, for a value outside of its range or choices (Optuna holds none), for a knob that
                is not searched, and for a factor whose centre depends on a searched knob that `entry` leaves out.
        """
        return parsing.drawn(entry, self.train, self.search, knobs, place or Location(self.source, "start"))


def load(
    path: str | Path, *, train: Mapping[str, Knob], data: Mapping[str, Knob], overrides: Sequence[str] = ()
) -> Space:
    """The space in a YAML file, changed by `overrides` (the KEY=VALUE of --set) and checked against the knobs.

    Raises:
        UserError: any mistake in the file or the overrides, in one line with its fix.
    """
    raw = yaml_loader.read(path)
    return _checked(raw, printable(str(path)), train, data, overrides)


def _checked(
    raw: dict[str, Any],
    source: str,
    train: Mapping[str, Knob],
    data: Mapping[str, Knob],
    given: Sequence[str],
) -> Space:
    typed = overrides.apply(raw, given, train, data)
    root = Location(source, "", typed)
    tunable = {name: knob for name, knob in train.items() if name not in budgets.KEYS}
    homes = parsing.homes(train, data)
    parsing.check_top(raw, root, homes)
    parts = {name: parsing.mapping(raw.get(name), root.at(name)) for name in ("data", "budget", "train", "search")}
    study = parsing.study(raw.get("study"), root.at("study"), source)
    checked_data = parsing.data(parts["data"], data, root.at("data"), homes)
    budget = budgets.parse(parts["budget"], root.at("budget"))
    fixed = parsing.fixed(parts["train"], tunable, root.at("train"), homes)
    search = parsing.search(parts["search"], tunable, root.at("search"), homes)
    parsing.check_together(fixed, search, budget.max_steps, train, root)
    start = parsing.start(raw.get("start"), fixed, search, train, root.at("start"))
    return Space(study, checked_data, budget, fixed, search, start, source)


def check_study_name(name: str, where: str = "--study") -> str:
    """`name`, if a study may be called so; else a UserError that begins with `where`."""
    return parsing.study(name, Location(where), None)


def values(assignments: Sequence[str], train: Mapping[str, Knob], where: str = "tmsearch add") -> dict[str, Any]:
    """KNOB=VALUE texts as checked absolute values, for a configuration that a person gives by hand.

    Raises:
        UserError: an unknown knob or a wrong value; the line begins with `where` and the knob.
    """
    root = Location(where)
    found: dict[str, Any] = {}
    for assignment in assignments:
        text, equals, value = assignment.partition("=")
        name = text.strip()
        parsing.check_keys_of([name], train, root)
        here = root.at(name)
        if not equals:
            raise here.error(f"no value; write {name}=VALUE")
        found[name] = check(train[name], yaml_loader.parse(value, f"{where}: {name}"), here)
    return found


def differences(old: Space, new: Space) -> list[str]:
    """One line for each key that changes what a search does, such as `train.batch_size: was 16, is 8`."""
    before, after = _flat(old), _flat(new)
    lines = []
    for key in dict.fromkeys([*before, *after]):
        if key not in before:
            lines.append(f"{key}: was not given, is {_text(after[key])}")
        elif key not in after:
            lines.append(f"{key}: was {_text(before[key])}, is not given")
        elif json.dumps(before[key]) != json.dumps(after[key]):
            lines.append(f"{key}: was {_text(before[key])}, is {_text(after[key])}")
    return lines


def _flat(space: Space) -> dict[str, Any]:
    """What changes a search, by dotted key, as plain values."""
    whole = space.to_json()
    parts = {
        f"{section}.{key}": value
        for section in SECTIONS
        if isinstance(whole[section], dict)
        for key, value in whole[section].items()
    }
    return {**parts, "start": whole["start"]}


def _text(value: Any) -> str:
    if isinstance(value, dict) and "kind" in value:
        value = value.get("values") or {key: part for key, part in value.items() if key != "kind"}
    return printable(shortened(json.dumps(value, ensure_ascii=False), 200))
