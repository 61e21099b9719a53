"""A space's ranges in Optuna's words: its distributions, and which values they can hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from search.space.distributions import Choice, FloatRange, IntRange, Range

MEMORY_CONSTRAINT = "memory"  # violated by a trial that ran out of memory


def to_distribution(searched: Range) -> BaseDistribution:
    """Optuna's distribution for a range of the space."""
    if isinstance(searched, FloatRange):
        return FloatDistribution(searched.low, searched.high, log=searched.log, step=searched.step)
    if isinstance(searched, IntRange):
        return IntDistribution(searched.low, searched.high, log=searched.log, step=searched.step or 1)
    assert isinstance(searched, Choice)
    return CategoricalDistribution(searched.values)


def to_range(distribution: BaseDistribution) -> Range:
    """The range for a distribution of Optuna's; of a choice its index, as Optuna's choices may be of any kind."""
    if isinstance(distribution, FloatDistribution):
        return FloatRange(distribution.low, distribution.high, distribution.log, distribution.step)
    if isinstance(distribution, IntDistribution):
        return IntRange(
            distribution.low, distribution.high, distribution.log, None if distribution.log else distribution.step
        )
    assert isinstance(distribution, CategoricalDistribution)
    return Choice(tuple(range(len(distribution.choices))))


def to_distributions(search: Mapping[str, Range]) -> dict[str, BaseDistribution]:
    """By knob, sorted by name: the order must not change what a seed draws."""
    return {name: to_distribution(search[name]) for name in sorted(search)}


def can_hold(distribution: BaseDistribution, value: Any) -> bool:
    """Whether Optuna can hold `value`: not one that a person added from outside of the range."""
    try:
        return bool(distribution._contains(distribution.to_internal_repr(value)))
    except (ValueError, TypeError):
        return False


def can_hold_all(distributions: Mapping[str, BaseDistribution], values: Mapping[str, Any]) -> bool:
    """Whether Optuna can hold these values, and they are of the knobs that are searched."""
    if set(values) != set(distributions):
        return False
    return all(can_hold(distributions[name], value) for name, value in values.items())
