"""Configurations that were trained elsewhere: what of them the search may use, and what they tell of noise."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from search.records import IMPORTED, Configuration, Rung

# A rung's metrics name the measure of its value (`MEASURE`: one of the study's own metrics, or "value") and whether the
# rung is one of the study's own, under its own budget and data (`COMPARES`).
MEASURE = "measure"
COMPARES = "compares"


@dataclass(frozen=True)
class RepeatNoise:
    """The standard deviation between trainings of one recipe, pooled over all recipes with several of them."""

    deviation: float
    degrees_of_freedom: int
    runs: int  # the trainings that it was estimated from


def without_imported(history: Sequence[Configuration]) -> list[Configuration]:
    """What the study itself trains: the scheduler counts and ranks nothing else."""
    return [configuration for configuration in history if configuration.origin != IMPORTED]


def rescale_imported(history: Sequence[Configuration]) -> list[Configuration]:
    """The history as a sampler may read it: imported values in the study's own measure, or without them.

    A value in another measure is multiplied by the median ratio of the study's own values to that measure; as long as
    the study has none of its own, such a value is left out.
    """
    own = without_imported(history)
    rescaled = []
    for configuration in history:
        if configuration.origin == IMPORTED:
            rungs = []
            for rung in configuration.rungs:
                factor = _factor(own, str(rung.metrics.get(MEASURE, "value"))) if rung.metrics.get(COMPARES) else None
                if factor is not None:
                    rungs.append(dataclasses.replace(rung, value=rung.value * factor))
            configuration = dataclasses.replace(configuration, rungs=tuple(rungs))
        rescaled.append(configuration)
    return rescaled


def compares(configuration: Configuration, rung: Rung) -> bool:
    """Whether the value at a rung is one of the study's own measure, budget and data; the study's own always are."""
    if configuration.origin != IMPORTED:
        return True
    return bool(rung.metrics.get(COMPARES)) and rung.metrics.get(MEASURE, "value") == "value"


def _factor(own: Sequence[Configuration], measure: str) -> float | None:
    """The median ratio of the study's own values to `measure`; None without any."""
    if measure == "value":
        return 1.0
    ratios = []
    for configuration in own:
        for rung in configuration.rungs:
            measured = rung.metrics.get(measure)
            if measured and math.isfinite(rung.value):
                ratios.append(rung.value / float(measured))
    return statistics.median(ratios) if ratios else None


def repeat_noise(history: Sequence[Configuration]) -> RepeatNoise | None:
    """The noise between imported trainings with equal parameters that compare with the study's; None without two.

    Each group is compared, in the study's own measure, at the last step that all of its trainings reached.
    """
    groups: dict[str, list[Configuration]] = {}
    for configuration in rescale_imported(history):
        if configuration.origin == IMPORTED and configuration.failure is None and configuration.rungs:
            params = {name: value for name, value in (configuration.params or {}).items() if name != "seed"}
            groups.setdefault(json.dumps(params, sort_keys=True), []).append(configuration)
    squares = 0.0
    degrees_of_freedom = 0
    runs = 0
    for group in groups.values():
        common_steps = set.intersection(*(set(configuration.curve) for configuration in group))
        if len(group) > 1 and common_steps:
            values = [configuration.curve[max(common_steps)] for configuration in group]
            squares += statistics.variance(values) * (len(values) - 1)
            degrees_of_freedom += len(values) - 1
            runs += len(values)
    if not degrees_of_freedom:
        return None
    return RepeatNoise(math.sqrt(squares / degrees_of_freedom), degrees_of_freedom, runs)
