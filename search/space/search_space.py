"""The space: a YAML file -> a frozen Space, or one line that names file, key and fix."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from search.errors import UserError
from search.schedulers.scheduler import AUTO
from search.space import budget as budgets
from search.space import distributions, parsing, recommended, yaml_loader
from search.space.budget import Budget
from search.space.distributions import Choice, FloatRange, IntRange, Range
from search.space.errors import Location, printable, shortened
from search.space.knobs import Knob, check, check_keys
from search.space.parsing import SECTIONS

__all__ = ["Budget", "Choice", "FloatRange", "IntRange", "Knob", "Range", "Space"]
__all__ += ["check_study_name", "differences", "load", "values"]

_FORMAT = 1  # of the snapshot that to_json makes


@dataclass(frozen=True)
class Space:
    """What a study searches. Keys are in the knobs' order, whatever the file's: order must not change a search.

    Attributes:
        study: the study's name.
        data, train: what the file gives, checked, in the knobs' own types.
        search: the ranges of the searched knobs.
        start: the configurations to try first, in absolute values, also of a knob that is searched as a factor.
        source: the file, for errors.
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
            "search": {name: distributions.to_json(searched) for name, searched in self.search.items()},
            "start": [dict(entry) for entry in self.start],
        }

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Space:
        """The inverse of to_json; raises UserError for a snapshot that this version cannot run."""
        if raw.get("format") != _FORMAT:
            name = printable(shortened(str(raw.get("study"))))
            raise UserError(f"{name}: the study's space was written by another version of tmsearch; use that version")
        return cls(
            study=raw["study"],
            data=dict(raw["data"]),
            budget=Budget.from_json(raw["budget"], raw["study"]),
            train=dict(raw["train"]),
            search={name: distributions.from_json(searched) for name, searched in raw["search"].items()},
            start=tuple(dict(entry) for entry in raw["start"]),
            source=raw["source"],
        )

    def fingerprint(self) -> str:
        """sha256, in hex, of everything that changes what a search does; not of the names of the study and the file."""
        text = json.dumps(_flat(self), sort_keys=True, ensure_ascii=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def with_budget_of(self, kept: Space) -> Space:
        """This space as the version read it that began the study `kept`: before 0.2.0 nothing was planned."""
        if kept.budget.spend is not None or self.budget.spend != AUTO:
            return self
        return replace(self, budget=replace(self.budget, spend=None))

    def resolve(self, drawn: Mapping[str, Any], knobs: Mapping[str, Knob]) -> dict[str, Any]:
        """The fixed and the drawn values by knob, a drawn factor as the absolute value; without `max_steps`.

        Raises what a knob's `recommended` raises.
        """
        params = {**self.train, **drawn}
        resolved = dict(params)
        for name, searched in self.search.items():
            if recommended.is_factor(searched) and name in drawn:
                center = recommended.center(knobs[name], params, knobs)
                resolved[name] = recommended.absolute(drawn[name], center)
        return resolved

    def drawn_from_start(
        self, entry: Mapping[str, Any], knobs: Mapping[str, Knob], location: Location | None = None
    ) -> dict[str, Any]:
        """The drawn values that give `entry`'s absolute ones: resolve() gives them back.

        Raises:
            UserError: at `location`, for a value outside of its range or choices (Optuna holds none), for a knob that
                is not searched, and for a factor whose center depends on a searched knob that `entry` leaves out.
        """
        return parsing.drawn_values(entry, self.train, self.search, knobs, location or Location(self.source, "start"))


def load(
    path: str | Path, *, train: Mapping[str, Knob], data: Mapping[str, Knob], overrides: Sequence[str] = ()
) -> Space:
    """The space in a YAML file, changed by `overrides` (the KEY=VALUE of --set) and checked against the knobs.

    Raises:
        UserError: any mistake in the file or the overrides, in one line with its fix.
    """
    return parse(yaml_loader.read(path), printable(str(path)), train=train, data=data, overrides=overrides)


def parse(
    raw: dict[str, Any],
    source: str,
    *,
    train: Mapping[str, Knob],
    data: Mapping[str, Knob],
    overrides: Sequence[str] = (),
) -> Space:
    """The space in plain values, as `load` makes it of a file's; `source` begins its errors, and `raw` is changed."""
    typed = parsing.apply_overrides(raw, overrides, train, data)
    root = Location(source, "", typed)
    homes = parsing.sections_of_keys(train, data)
    check_keys(raw, SECTIONS, root, homes=homes)
    tunable = {name: knob for name, knob in train.items() if name not in budgets.KEYS}
    section = {
        name: parsing.parse_mapping(raw.get(name), root.at(name)) for name in ("data", "budget", "train", "search")
    }
    study = parsing.parse_study(raw.get("study"), root.at("study"), source)
    checked_data = parsing.parse_data(section["data"], data, root.at("data"), homes)
    budget = budgets.parse(section["budget"], root.at("budget"))
    fixed = parsing.parse_fixed(section["train"], tunable, root.at("train"), homes)
    search = parsing.parse_search(section["search"], tunable, root.at("search"), homes)
    parsing.check_together(fixed, search, budget.max_steps, train, root)
    start = parsing.parse_start(raw.get("start"), fixed, search, train, root.at("start"))
    return Space(study, checked_data, budget, fixed, search, start, source)


def check_study_name(name: str, where: str = "--study") -> str:
    """`name`, if a study may be called so; else a UserError that starts with `where`."""
    return parsing.parse_study(name, Location(where), None)


def values(
    assignments: Sequence[str],
    train: Mapping[str, Knob],
    where: str = "add",
    budget: Sequence[str] = (),
    searched: Sequence[str] | None = None,
) -> dict[str, Any]:
    """KNOB=VALUE texts as checked absolute values, for a trial that a person adds by hand.

    `budget` names knobs of the study's budget that may be given, too: of a training elsewhere they are values.
    `searched` names the knobs that may be given where those are not all.

    Raises:
        UserError: an unknown knob or a wrong value; the line starts with `where` and the knob.
    """
    root = Location(where)
    checked: dict[str, Any] = {}
    for assignment in assignments:
        text, equals, value = assignment.partition("=")
        name = text.strip()
        if searched is not None:
            parsing.check_searched(name, searched, train, root)
        elif name not in budget:
            parsing.check_knob_names([name], train, root)
        here = root.at(name)
        if not equals:
            raise here.error(f"no value; write {name}=VALUE")
        checked[name] = check(train[name], yaml_loader.parse(value, f"{where}: {name}"), here)
    return checked


def differences(old: Space, new: Space) -> list[str]:
    """One line for each key that changes what a search does, such as `train.batch_size: was 16, is 8`."""
    before = _flat(old)
    after = _flat(new)
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
    snapshot = space.to_json()
    flat: dict[str, Any] = {}
    for section in SECTIONS:
        if isinstance(snapshot[section], dict):
            for key, value in snapshot[section].items():
                flat[f"{section}.{key}"] = value
    flat["start"] = snapshot["start"]
    return flat


def _text(value: Any) -> str:
    if isinstance(value, dict) and "kind" in value:
        value = value.get("values") or {key: part for key, part in value.items() if key != "kind"}
    return printable(shortened(json.dumps(value, ensure_ascii=False), 200))
