"""Configurations that were trained elsewhere: what of them the search may use, and what they tell of noise."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from search.records import IMPORTED, Configuration

# A rung's metrics say in which measure it was told (`MEASURE`: the name of one of our own metrics, or "value") and
# whether it is one of the study's own rungs under the study's own budget and data (`COMPARES`).
MEASURE, COMPARES = "measure", "compares"


@dataclass(frozen=True)
class RepeatNoise:
    """The standard deviation between trainings of one recipe, from `freedom` degrees of freedom of `runs` trainings."""

    deviation: float
    degrees_of_freedom: int
    runs: int


def without_imported(history: Sequence[Configuration]) -> list[Configuration]:
    """What the study itself trains: the ladder counts and ranks nothing else."""
    return [one for one in history if one.origin != IMPORTED]


def rescale_imported(history: Sequence[Configuration]) -> list[Configuration]:
    """The history as a sampler may read it: imported values in the study's own unit, or without them.

    A value in another measure is multiplied by the median ratio of the study's own values to that measure; as long as
    the study has none of its own, such a value says nothing.
    """
    mine = without_imported(history)
    read = []
    for one in history:
        if one.origin != IMPORTED:
            read.append(one)
            continue
        rungs = []
        for rung in one.rungs:
            factor = _factor(mine, str(rung.metrics.get(MEASURE, "value"))) if rung.metrics.get(COMPARES) else None
            if factor is not None:
                rungs.append(dataclasses.replace(rung, value=rung.value * factor))
        read.append(dataclasses.replace(one, rungs=tuple(rungs)))
    return read


def _factor(mine: Sequence[Configuration], measure: str) -> float | None:
    if measure == "value":
        return 1.0
    pairs = [(rung.value, rung.metrics.get(measure)) for one in mine for rung in one.rungs]
    ratios = [value / float(other) for value, other in pairs if other and math.isfinite(value)]
    return statistics.median(ratios) if ratios else None


def repeat_noise(history: Sequence[Configuration]) -> RepeatNoise | None:
    """From imported trainings with equal parameters, at the last step that all of a group reached; None without two."""
    groups: dict[str, list[Configuration]] = {}
    for one in history:
        if one.origin == IMPORTED and one.failure is None and one.rungs:
            params = {name: value for name, value in (one.params or {}).items() if name != "seed"}
            groups.setdefault(json.dumps(params, sort_keys=True), []).append(one)
    squares, freedom, runs = 0.0, 0, 0
    for group in groups.values():
        common = set.intersection(*(set(one.curve) for one in group))
        if len(group) > 1 and common:
            values = [one.curve[max(common)] for one in group]
            squares += statistics.variance(values) * (len(values) - 1)
            freedom += len(values) - 1
            runs += len(values)
    return RepeatNoise(math.sqrt(squares / freedom), freedom, runs) if freedom else None
