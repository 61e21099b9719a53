"""A switch on against off: configurations paired with the most similar one across it, compared on the same clips."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

FACTOR = 3.0  # learning rates further apart than this are no pair
_RESAMPLES = 4000
_FAR = 1e6  # what no pair may cost
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class MatchCandidate:
    """A configuration with its errors by clip at the rung of the comparison. `knobs` are without the switch."""

    number: int
    on: bool
    model: str
    knobs: Mapping[str, Any]
    errors: Sequence[int]


@dataclass(frozen=True)
class MatchedPair:
    """`difference` is WER with the switch on less WER with it off, with its interval over clips."""

    on: int
    off: int
    difference: float
    low: float
    high: float
    factor: float | None  # between the learning rates


@dataclass(frozen=True)
class MatchedPairs:
    """The mean difference over pairs. Interval: bootstrap over pairs and clips; over clips alone for a single pair."""

    pairs: tuple[MatchedPair, ...]
    difference: float
    low: float
    high: float
    clips: int
    left: int  # configurations without a partner
    how: str


def paired(candidates: Sequence[MatchCandidate], words: Sequence[int]) -> MatchedPairs | None:
    """The best one-to-one matching within each model; None where no two configurations make a pair."""
    usable = [one for one in candidates if len(one.errors) == len(words)]
    couples = [
        couple
        for model in sorted({one.model for one in usable})
        for couple in _couples([one for one in usable if one.model == model], usable)
    ]
    if not couples or not sum(words):
        return None
    table = np.array([np.subtract(on.errors, off.errors) for on, off in couples], float)
    heard = np.asarray(words, float)
    rng = np.random.default_rng(len(couples))
    clips = rng.multinomial(len(heard), np.full(len(heard), 1 / len(heard)), size=_RESAMPLES).astype(float)
    each = (clips @ table.T) / np.maximum(clips @ heard, 1.0)[:, None]  # [resamples, pairs]
    drawn = rng.multinomial(len(couples), np.full(len(couples), 1 / len(couples)), size=_RESAMPLES) / len(couples)
    low, high = np.quantile((each * drawn).sum(axis=1), [0.025, 0.975])
    bounds = np.quantile(each, [0.025, 0.975], axis=0)
    pairs = [
        MatchedPair(
            on.number, off.number, float(row.sum() / heard.sum()), float(lowest), float(highest), _factor(on, off)
        )
        for (on, off), row, lowest, highest in zip(couples, table, *bounds, strict=True)
    ]
    mean = float(table.sum() / heard.sum() / len(couples))
    left = len(candidates) - 2 * len(couples)
    return MatchedPairs(tuple(pairs), mean, float(low), float(high), len(heard), left, _how(pairs, couples))


def _couples(
    here: Sequence[MatchCandidate], every: Sequence[MatchCandidate]
) -> list[tuple[MatchCandidate, MatchCandidate]]:
    on, off = ([one for one in here if one.on is side] for side in (True, False))
    if not on or not off:
        return []
    ranges = _ranges(every)
    costs = np.array([[_distance(one, other, ranges) for other in off] for one in on])
    rows, columns = linear_sum_assignment(costs)
    return [(on[row], off[column]) for row, column in zip(rows, columns, strict=True) if costs[row, column] < _FAR]


def _ranges(every: Sequence[MatchCandidate]) -> dict[str, float]:
    """How far numeric knobs spread."""
    found = {}
    for name in every[0].knobs:
        values = [one.knobs.get(name) for one in every]
        numbers = [_number(value) for value in values if _is_number(value)]
        if len(numbers) == len(values):
            found[name] = (max(numbers) - min(numbers)) or 1.0
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: Any) -> float:
    return float(value)


def _factor(one: MatchCandidate, other: MatchCandidate) -> float | None:
    mine, theirs = one.knobs.get("learning_rate"), other.knobs.get("learning_rate")
    if not _is_number(mine) or not _is_number(theirs) or not mine or not theirs:
        return None
    return math.exp(abs(math.log(mine / theirs)))


def _distance(one: MatchCandidate, other: MatchCandidate, ranges: Mapping[str, float]) -> float:
    """In units of a knob's range, a choice that differs counting 1, a learning rate apart by FACTOR 1."""
    total = 0.0
    for name, mine in one.knobs.items():
        theirs = other.knobs.get(name)
        if name == "learning_rate" and (factor := _factor(one, other)) is not None:
            total += math.log(factor) / math.log(FACTOR) if factor <= FACTOR else _FAR
        elif name in ranges:
            total += abs(_number(mine) - _number(theirs)) / ranges[name]
        else:
            total += float(mine != theirs)
    return total


def _how(pairs: Sequence[MatchedPair], couples: Sequence[tuple[MatchCandidate, MatchCandidate]]) -> str:
    said = ["the same model"]
    factors = sorted(one.factor for one in pairs if one.factor is not None)
    if factors:
        middle = factors[len(factors) // 2]
        said.append(f"learning rates apart by a factor of {middle:.2g} in the median, {FACTOR:g} at most")
    others = [name for name in couples[0][0].knobs if name != "learning_rate"]
    if others:
        same = sum(all(on.knobs[name] == off.knobs.get(name) for name in others) for on, off in couples)
        said.append(f"{', '.join(others)} as near as there were, equal in {same} of {len(couples)} pairs")
    return "; ".join(said)
