"""Configurations that are in the study already: a draw never repeats one, unless the space is used up."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from search.imported import without_imported
from search.records import Configuration, drawn_key
from search.space.distributions import Choice, FloatRange, Range

Drawn = dict[str, Any]
IsTaken = Callable[[Mapping[str, Any]], bool]

_REDRAWS = 200  # at random, before the values of a finite space are gone through in their order


def taken_by(history: Sequence[Configuration]) -> IsTaken:
    """Whether the study has a configuration of these values; what was trained elsewhere may be trained here."""
    keys = {drawn_key(trial.drawn) for trial in without_imported(history) if trial.drawn is not None}
    return lambda drawn: drawn_key(drawn) in keys


def repeated_trial(history: Sequence[Configuration], drawn: Mapping[str, Any]) -> Configuration | None:
    """The first configuration of the history that has these values; None where they are new."""
    key = drawn_key(drawn)
    for trial in without_imported(history):
        if trial.drawn is not None and drawn_key(trial.drawn) == key:
            return trial
    return None


def remark(search: Mapping[str, Range], history: Sequence[Configuration]) -> str:
    """How many sampled configurations repeat earlier ones, in words; empty where none does.

    That the space is used up is said only where it is: before 0.2.0 a draw could repeat one in any space.
    """
    repeated = count(history)
    if not repeated:
        return ""
    words = "1 configuration repeats" if repeated == 1 else f"{repeated} configurations repeat"
    words += " what was tried before"
    distinct = {drawn_key(trial.drawn) for trial in without_imported(history) if trial.drawn is not None}
    return f"the space is used up: {words}" if len(distinct) >= size(search) else words


def count(history: Sequence[Configuration]) -> int:
    """How many sampled configurations repeat an earlier one."""
    keys = set()
    repeated = 0
    for trial in without_imported(history):
        if trial.drawn is None:
            continue
        key = drawn_key(trial.drawn)
        repeated += trial.origin == "sampled" and key in keys
        keys.add(key)
    return repeated


def reason(search: Mapping[str, Range], original: Configuration) -> str:
    """Why a trial has the values of an earlier one, in words."""
    held = size(search)
    if math.isinf(held):
        return f"has the values of trial {original.number}, as the space file gives them"
    return f"has the values of trial {original.number}: the space holds {held:.0f} configurations"


def size(search: Mapping[str, Range]) -> float:
    """How many configurations the space holds; infinite where a knob has a range without steps."""
    return math.prod((_count(searched) for searched in search.values()), start=1.0)


def unused(search: Mapping[str, Range], given: Mapping[str, Any], is_taken: IsTaken, seed: int) -> Drawn | None:
    """Values that the study does not have, drawn at random; None where the space is used up.

    Args:
        search: the ranges to draw from, by knob.
        given: values that are fixed.
        is_taken: whether the study has a configuration of these values.
        seed: equal seeds give equal values.
    """
    import numpy as np  # `status` counts repeats, and starts faster without it

    from search.space import encoding

    random = np.random.default_rng([seed, 1])  # not the sampler's own numbers again
    for _ in range(_REDRAWS):
        drawn = {**encoding.from_unit_cube(search, random.random(len(search))), **given}
        if not is_taken(drawn):
            return drawn
    for drawn in _all_values({name: searched for name, searched in search.items() if name not in given}):
        drawn.update(given)
        if not is_taken(drawn):
            return drawn
    return None


def _all_values(search: Mapping[str, Range]) -> Iterator[Drawn]:
    """Every configuration of a finite space, in order; none of another."""
    if math.isinf(size(search)):
        return
    names = sorted(search)
    for values in itertools.product(*(_values(search[name]) for name in names)):
        yield dict(zip(names, values, strict=True))


def _count(searched: Range) -> float:
    if isinstance(searched, Choice):
        return len(searched.values)
    if searched.low == searched.high:
        return 1
    step = searched.step
    if isinstance(searched, FloatRange):
        return round((searched.high - searched.low) / step) + 1 if step else math.inf
    return (searched.high - searched.low) // (step or 1) + 1


def _values(searched: Range) -> Iterator[Any]:
    """The values of a range with few enough to count, as from_unit_cube gives them."""
    if isinstance(searched, Choice):
        yield from searched.values
        return
    step = searched.step or 1
    for index in range(int(_count(searched))):
        value = min(searched.low + index * step, searched.high)
        yield float(value) if isinstance(searched, FloatRange) else int(value)
