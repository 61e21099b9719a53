"""`--set KEY=VALUE`: a change to a space file, made before it is checked."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from search.space import yaml_loader
from search.space.budget import KEYS
from search.space.errors import Location, printable, shortened, suggestion

SECTIONS = ("study", "data", "budget", "train", "search", "start")


def apply(
    raw: dict[str, Any], overrides: Sequence[str], train: Collection[str], data: Collection[str]
) -> dict[str, str]:
    """Changes `raw`, a file's mapping, in place; returns what was typed for each key, by its dotted path.

    A bare knob name fixes the knob: it goes into `train` and leaves `search` and the start entries. Putting a
    range under `search` takes the knob out of `train`. Later overrides come after earlier ones.
    """
    typed: dict[str, str] = {}
    for override in overrides:
        text, equals, value = override.partition("=")
        name = text.strip()
        shown_name = printable(shortened(name))
        place = Location(f"--set {shown_name}" if name else f"--set {shortened(override)!r}")
        if not equals or not name:
            raise place.error("no KEY=VALUE; write it as in --set learning_rate=1e-5")
        path = _path(name, train, data, place)
        _put(raw, path, yaml_loader.parse(value, place.source), place)
        if path[0] == "train" and len(path) == 2:
            _unsearch(raw, path[1])
        if path[0] == "search" and len(path) > 1 and isinstance(raw.get("train"), dict):
            raw["train"].pop(path[1], None)
        typed[".".join(path)] = shown_name
    return typed


def _path(name: str, train: Collection[str], data: Collection[str], place: Location) -> list[str]:
    path = name.split(".")
    if path[0] in SECTIONS:
        if not all(path):
            raise place.error("an empty name between dots; write SECTION.KEY")
        return path
    if name in train and name not in KEYS:
        return ["train", name]
    for section, names in (("budget", KEYS), ("data", data)):
        if name in names:
            raise place.error(f"belongs to {section}; say --set {section}.{name}=VALUE")
    raise place.error(f"no such key; {suggestion(name, [*(one for one in train if one not in KEYS), *SECTIONS])}")


def _put(raw: dict[str, Any], path: list[str], value: Any, place: Location) -> None:
    target: Any = raw
    for depth, name in enumerate(path[:-1], start=1):
        if target.get(name) is None:
            target[name] = {}
        target = target[name]
        if not isinstance(target, dict):
            whole = printable(".".join(path[:depth]))
            raise place.error(f"{whole} has no keys of its own; give it whole: --set {whole}=VALUE")
    target[path[-1]] = value


def _unsearch(raw: dict[str, Any], knob: str) -> None:
    if isinstance(raw.get("search"), dict):
        raw["search"].pop(knob, None)
    if isinstance(raw.get("start"), list):
        entries = [entry for entry in raw["start"] if not (isinstance(entry, dict) and set(entry) == {knob})]
        for entry in entries:
            if isinstance(entry, dict):
                entry.pop(knob, None)
        raw["start"] = entries
