"""What studies on other recorded tables know of a table's knobs: the earlier studies of a simulated one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from search.records import Configuration
from search.samplers.earlier import Center, EarlierStudies, EarlierStudy, likeness, ratio
from search.samplers.earlier_studies import has_place, of_trials
from search.simulation import comparison
from search.simulation.benchmark_table import BenchmarkTable
from search.simulation.simulator import Method, SimulatedSearch
from search.space.parsing import is_within_budget

_OTHER_SEED = 1000  # between a study's seed and that of the earlier ones


def informed_method(others: Sequence[BenchmarkTable], trials: int, is_reversed: bool = False) -> Method:
    """Ours, where a study of so many configurations was made on each of the other tables before.

    Args:
        others: the tables of the earlier studies.
        trials: configurations of an earlier study.
        is_reversed: whether what was best there is taken for the worst, as if all of it were wrong.
    """

    def earlier(table: BenchmarkTable, seed: int, is_given: bool) -> EarlierStudies | None:
        studies = []
        for other in others:
            study = _earlier_study(table, other, _history(other, seed + _OTHER_SEED, trials, is_given))
            if study is not None:
                studies.append(_reversed(study) if is_reversed else study)
        studies.sort(key=lambda study: -study.likeness)
        return EarlierStudies(tuple(studies), _centers(table)) if studies else None

    names = " and ".join(dict.fromkeys(other.study for other in others))
    own = comparison.own_method(name=f"{comparison.OWN_NAME}, knows {names}{', reversed' if is_reversed else ''}")
    return replace(own, earlier=earlier)


# Tables are told apart by identity, and held so that no other takes it: a study on one is simulated once for all
# questions.
_HISTORIES: dict[tuple[int, int, int, bool], tuple[BenchmarkTable, Sequence[Configuration]]] = {}


def _history(table: BenchmarkTable, seed: int, trials: int, is_given: bool) -> Sequence[Configuration]:
    key = (id(table), seed, trials, is_given)
    if key not in _HISTORIES:
        sized = replace(comparison.own_method(), trials=trials)
        search = SimulatedSearch(table, sized, seed, 1, table.default if is_given else None)
        search.run(frozenset(), once=True)
        _HISTORIES[key] = (table, search.ledger.history())
    return _HISTORIES[key][1]


def _centers(table: BenchmarkTable) -> dict[str, Center]:
    centers = dict(table.centers)
    for name in table.search:
        if is_within_budget(name) and name not in centers:
            centers[name] = Center({"[]": float(table.rungs[-1])})
    return centers


def _earlier_study(
    table: BenchmarkTable, other: BenchmarkTable, history: Sequence[Configuration]
) -> EarlierStudy | None:
    """What a study on another table knows of the knobs of this one."""
    own_centers = _centers(table)
    other_centers = _centers(other)
    shared = [
        name
        for name in sorted(other.search)
        if name in table.search and (name in own_centers) == (name in other_centers)
    ]

    def neutral(trial: Configuration) -> Mapping[str, Any] | None:
        row = {}
        for name in shared:
            value = (trial.drawn or {})[name]
            center = other_centers.get(name)
            searched = table.search[name]
            is_log = bool(getattr(searched, "log", False)) or (center is not None and center.is_factor)
            if not has_place(searched, value, is_log):
                return None
            row[name] = value if center is None else value / center.of(trial.drawn or {})
        return row

    ratios = [ratio(table.parameters, other.parameters), ratio(table.seconds, other.seconds)]
    return of_trials(other.study, likeness(ratios), history, other.rungs[-1], neutral)


def _reversed(study: EarlierStudy) -> EarlierStudy:
    return replace(study, finals=tuple(-value for value in study.finals))
