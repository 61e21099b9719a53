"""The fields of TrainConfig and DataConfig as the engine's knobs, and a space file with its paths made absolute."""

from __future__ import annotations

import dataclasses
import os
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from search.errors import UserError
from search.space import parsing
from search.space import search_space as spaces
from search.space.errors import Location, printable
from search.space.knobs import Knob
from search.space.search_space import Choice, Range, Space
from tmsearch.config import NEW_STUDIES, DataConfig, ExtraData, TrainConfig
from tmsearch.languages import code_if_known


def knobs(config: type[TrainConfig | DataConfig | ExtraData]) -> dict[str, Knob]:
    """Every legal key of `config`, in the order of its fields, with the limits that the field carries."""
    hints = typing.get_type_hints(config)
    legal = {}
    for item in dataclasses.fields(config):
        hint = hints[item.name]
        limits = dict(item.metadata)
        items = limits.pop("items")
        kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        legal[item.name] = Knob(
            name=item.name,
            kinds=tuple(kind for kind in kinds if kind is not types.NoneType),
            optional=types.NoneType in kinds,
            default=None if item.default is dataclasses.MISSING else item.default,
            items=None if items is None else knobs(items),
            **limits,
        )
    return legal


SPACE = "space"  # begins the errors of a space that lies in no file
_DEEPEST = 20  # nested lists and mappings, as in a file

TRAIN: Mapping[str, Knob] = knobs(TrainConfig)
DATA: Mapping[str, Knob] = knobs(DataConfig)


def load_space(path: str, overrides: Sequence[str], study: str | None) -> Space:
    """The space in a file, checked against every knob; raises UserError.

    Paths are taken from the current folder, like any command's, and kept absolute: a study goes on from anywhere.
    """
    return _portable(spaces.load(path, train=TRAIN, data=DATA, overrides=overrides), study)


def space_of(mapping: Mapping[str, Any], overrides: Sequence[str], study: str | None) -> Space:
    """The space in a mapping, as `load_space` makes it of a file; raises UserError."""
    raw = plain_mapping(mapping, SPACE)
    if study is not None:
        raw.setdefault("study", study)
    return _portable(spaces.parse(raw, SPACE, train=TRAIN, data=DATA, overrides=overrides), study)


def plain_mapping(mapping: Mapping[str, Any], source: str) -> dict[str, Any]:
    """A copy of a mapping with the plain values that a file would have: paths as text, NumPy's numbers as Python's.

    Raises:
        UserError: it holds something else, which `source` begins.
    """
    value = _plain(mapping, Location(source), 0)
    assert isinstance(value, dict)
    return value


def _plain(value: Any, location: Location, depth: int) -> Any:
    if depth > _DEEPEST:
        raise location.error("nested too deep; a space needs 3 levels")
    if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0:
        return value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item, location.at(str(key)), depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, location, depth + 1) for item in value]
    raise location.error(f"{type(value).__name__} where a plain value belongs; give a number, text, a list or a dict")


def _portable(space: Space, study: str | None) -> Space:
    """The space under the name that a person asked for, with absolute paths."""
    if study is not None:
        space = dataclasses.replace(space, study=spaces.check_study_name(study))
    data, train, search = dict(space.data), dict(space.train), dict(space.search)
    data["dataset"] = absolute(data["dataset"])
    for name in ("keep", "noise"):
        if data.get(name):
            data[name] = absolute(data[name])
    if data.get("extra"):
        data["extra"] = [{**item, "dataset": absolute(item["dataset"])} for item in data["extra"]]
    if "model" in train:
        train["model"] = absolute(train["model"])
    models = search.get("model")
    if isinstance(models, Choice):
        search["model"] = dataclasses.replace(models, values=tuple(absolute(one) for one in models.values))
    start = tuple({**entry, "model": absolute(entry["model"])} if "model" in entry else entry for entry in space.start)
    return dataclasses.replace(space, data=data, train=train, search=search, start=start)


def data_section(dataset: str, assignments: Sequence[str], command: str, language: str | None = None) -> dict[str, Any]:
    """The data section of a dataset by its name, as far as a person gave it on the line of `command`; raises UserError.

    `assignments` are the texts after --set, data.KEY=VALUE.
    """
    raw: dict[str, Any] = {"data": {"dataset": dataset}}
    if language:
        raw["data"]["language"] = language
    options = parsing.apply_overrides(raw, assignments, TRAIN, DATA)
    for key in options:
        if key.partition(".")[0] != "data":
            raise UserError(f"--set {printable(key)}: {command} takes data.KEY=VALUE; a space file has the rest")
    location = Location(command, "", options)
    return dict(parsing.parse_data(raw["data"], DATA, location.at("data"), parsing.sections_of_keys(TRAIN, DATA)))


def with_fitting_defaults(space: Space) -> tuple[Space, list[str]]:
    """The space with each default that no training would reach lowered to a tenth of one.

    Returns:
        The space, and a line for each such default, and for each searched knob of which some trials fall short.
    """
    max_steps = space.budget.max_steps
    train = dict(space.train)
    lines = []
    for name, knob in TRAIN.items():
        if name in train or not parsing.is_within_budget(name):
            continue
        if name in space.search:
            lines += _unreached(name, space.search[name], max_steps)
            continue
        if isinstance(knob.default, int) and knob.default > max_steps:
            train[name] = max_steps // 10
            fault = f"its default, {knob.default}, is past budget.max_steps, {max_steps}"
            lines.append(f"{name}: {train[name]}, as {fault}")
    in_order = {name: train[name] for name in TRAIN if name in train}
    return dataclasses.replace(space, train=in_order), lines


def with_new_defaults(space: Space) -> tuple[Space, list[str]]:
    """The space as a new study keeps it: with the knobs that came later, where it gives none, and a line that says so.

    A study that was made without them resumes without them.
    """
    added = {name: value for name, value in NEW_STUDIES.items() if name not in {**space.train, **space.search}}
    if "window_share" not in space.search and not {**added, **space.train}["window_share"]:
        added.pop("window_prompts", None)
    if not added:
        return space, []
    train = {**space.train, **added}
    in_order = {name: train[name] for name in TRAIN if name in train}
    values = ", ".join(f"{name} {value:g}" for name, value in added.items())
    line = f"{values}: so that the model hears long recordings, too"
    if added.keys() & {"window_share", "clip_times"}:
        line += "; 0 trains on single clips without times"
    return dataclasses.replace(space, train=in_order), [line]


def without_new_prompts(space: Space, written: Space) -> Space:
    """The space with the prompts that windows had at first, unless its file says: as studies of then have it."""
    train = dict(space.train)
    if "window_prompts" not in written.train:
        train.pop("window_prompts", None)
    return dataclasses.replace(space, train=train)


def without_new_knobs(space: Space) -> Space:
    """The space without the knobs that came later where it turns them off: as studies without them have it."""
    train = dict(space.train)
    for name in NEW_STUDIES:
        if train.get(name) == TRAIN[name].default:
            del train[name]
    return dataclasses.replace(space, train=train)


def _unreached(name: str, searched: Range, max_steps: int) -> list[str]:
    most = max(searched.values) if isinstance(searched, Choice) else searched.high
    if most <= max_steps:
        return []
    return [f"search.{name}: goes up to {most}, and a trial with more than budget.max_steps, {max_steps}, falls short"]


def by_one_name(space: Space) -> Space:
    """A space that an earlier version kept as it was written, with its language by the name that it is kept by."""
    language = space.data.get("language")
    if language is None:
        return space
    return dataclasses.replace(space, data={**space.data, "language": code_if_known(language)})


def absolute(name: str) -> str:
    """A hub id as it is, an existing path absolute."""
    path = Path(name).expanduser()
    return str(path.resolve()) if path.exists() and not name.startswith("demo/") and name != "demo" else name
