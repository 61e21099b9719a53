"""Earlier studies of a storage, gathered once for a new one: which configurations of which studies it is to know."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from search.errors import UserError
from search.imported import MEASURE, without_imported
from search.records import BAD_PARAMETERS, IMPORTED, Configuration
from search.samplers.earlier import Center, EarlierStudies, EarlierStudy, key_of
from search.schedulers.extrapolation import final_values, most_telling
from search.space import parsing, recommended
from search.space.distributions import Choice, Range
from search.space.knobs import Knob
from search.space.search_space import Space
from search.storage.ledger import Ledger

# (an earlier study's space, its facts) -> likeness of its model and data to the new study's: above 0, at most 1; None
# where the study does not count
Likeness = Callable[[Space, Mapping[str, Any]], float | None]
# A trial -> its values of the shared knobs in neutral terms, see earlier.py; None where a range has no place for one
Neutral = Callable[[Configuration], Mapping[str, Any] | None]

_MOST_STUDIES = 8  # each costs a process at the start of a worker, .1 s at most
_MOST_CONFIGURATIONS = 64  # of a study: the lowest half of them, and others evenly from the rest
_LEAST_CONFIGURATIONS = 4  # with a value; fewer say little of several knobs
_DIGITS = 6  # of recorded logarithms


def gather(
    ledgers: Sequence[Ledger], space: Space, knobs: Mapping[str, Knob], likeness: Likeness
) -> EarlierStudies | None:
    """What the studies of `ledgers` know of the knobs that `space` searches, the most alike first.

    Trainings elsewhere that were imported into a study count as a study of their own for each measure of theirs.

    Args:
        ledgers: earlier studies, without the space's own.
        space: of the new study.
        knobs: all knobs of the application by name.
        likeness: of a study to the new one.

    Returns:
        What is known; None where no study has a knob in common with the space and enough results.
    """
    own_centers = {}
    for name in space.search:
        center = _center(name, space, knobs)
        if center is not None:
            own_centers[name] = center
    studies: list[EarlierStudy] = []
    for ledger, pair, like in _ranked(ledgers, space, knobs, likeness):
        if len(studies) >= _MOST_STUDIES:  # a storage may hold hundreds, and a history takes some 10 ms to read
            break
        with contextlib.suppress(UserError):  # deleted meanwhile
            studies += _of_ledger(ledger, pair, like)
    studies.sort(key=lambda study: (-study.likeness, -len(study.drawn), study.name))
    studies = studies[:_MOST_STUDIES]
    shared = {name for study in studies for name in study.knobs}
    centers = {name: center for name, center in own_centers.items() if name in shared}
    return EarlierStudies(tuple(studies), centers) if studies else None


def _ranked(
    ledgers: Sequence[Ledger], space: Space, knobs: Mapping[str, Knob], likeness: Likeness
) -> list[tuple[Ledger, _Pair, float]]:
    """The studies that count, the most alike first; of equally alike ones those that asked for more trials."""
    ranked = []
    for ledger in ledgers:
        try:
            record = ledger.record()
            earlier_space = Space.from_json(dict(record.space))
            like = likeness(earlier_space, ledger.facts())
        except UserError:  # of a version whose studies this one cannot read, or deleted meanwhile
            continue
        if like is not None:
            ranked.append((ledger, _Pair(earlier_space, space, knobs), like, record.trials))
    ranked.sort(key=lambda study: (-study[2], -study[3], study[0].study))
    return [(ledger, pair, like) for ledger, pair, like, _ in ranked]


def of_trials(
    name: str, likeness: float, trials: Sequence[Configuration], last_rung: int, neutral: Neutral
) -> EarlierStudy | None:
    """An earlier study of these trials; None where too few have values, or all have the same."""
    telling = []
    rows = []
    for trial in trials:
        is_judged = bool(trial.rungs) and trial.failure is None
        row = neutral(trial) if is_judged or trial.failure in BAD_PARAMETERS else None
        if row:
            telling.append(trial)
            rows.append(row)
    if sum(trial.failure is None for trial in telling) < _LEAST_CONFIGURATIONS:
        return None
    finals, variances = final_values(telling, last_rung)  # [n], [n]
    if not float(np.ptp(finals)):
        return None
    indices = most_telling(finals, _MOST_CONFIGURATIONS)
    return EarlierStudy(
        name,
        round(likeness, _DIGITS),
        tuple(rows[index] for index in indices),
        tuple(round(float(finals[index]), _DIGITS) for index in indices),
        tuple(round(float(variances[index]), _DIGITS) for index in indices),
    )


def has_place(searched: Range, value: Any, is_log: bool) -> bool:
    """Whether an earlier value says something of a range: a number of a range, above 0 on a log scale."""
    if isinstance(searched, Choice):
        return value is None or isinstance(value, bool | int | float | str)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return False
    return searched.high > searched.low and (value > 0 or not is_log)


class _Pair:
    """An earlier space and the new one: the earlier one's values in neutral terms."""

    def __init__(self, earlier: Space, space: Space, knobs: Mapping[str, Knob]) -> None:
        self.earlier = earlier
        self.space = space
        self._knobs = knobs

    def neutral(self, trial: Configuration, names: Collection[str]) -> Mapping[str, Any] | None:
        """The trial's values of these knobs; None where one of them has no place in the new ranges."""
        params = trial.params or {}
        row = {}
        for name in sorted(names):
            value = params.get(name)
            knob = self._knobs[name]
            is_factor = knob.recommended is not None
            searched = self.space.search[name]
            is_log = is_factor or bool(getattr(searched, "log", False))
            if name not in params or not has_place(searched, value, is_log):
                return None
            if value is None or isinstance(searched, Choice):
                row[name] = value
                continue
            divisor = 1.0
            if is_factor:
                known = recommended.center_if_known(knob, {**self.earlier.train, **params}, self._knobs)
                divisor = 1.0 if known is None else known
            elif parsing.is_within_budget(name):
                divisor = float(self.earlier.budget.max_steps)
            row[name] = float(f"{value / divisor:.12g}")
        return row

    def is_shared(self, name: str) -> bool:
        """Whether values of a knob of the new space mean the same in both."""
        searched = self.space.search[name]
        if _is_fixed(searched):
            return False
        if self._knobs[name].recommended is None:
            return True
        are_known = [_is_center_known(name, space, self._knobs) for space in (self.earlier, self.space)]
        if all(are_known) and not isinstance(searched, Choice):
            return True
        # As absolute values they compare where the model is the same.
        is_absolute = isinstance(searched, Choice) or not any(are_known)
        return is_absolute and _fixed(self.earlier) == _fixed(self.space)


def _is_fixed(searched: Range) -> bool:
    """Whether it has but one value."""
    return len(searched.values) == 1 if isinstance(searched, Choice) else searched.low == searched.high


def _is_center_known(name: str, space: Space, knobs: Mapping[str, Knob]) -> bool:
    searched = space.search.get(name)
    if searched is not None and recommended.is_factor(searched):
        return True
    return recommended.centers(name, space.train, space.search, knobs) is not None


def _fixed(space: Space) -> dict[str, Any]:
    """The fixed knobs that say which weights are trained."""
    return {name: space.train.get(name) for name in ("model", "lora_r")}


def _center(name: str, space: Space, knobs: Mapping[str, Knob]) -> Center | None:
    """What the new study's values of a knob are divided by; None: nothing, or it is not known."""
    searched = space.search[name]
    if isinstance(searched, Choice):
        return None
    if recommended.is_factor(searched):
        return Center({"[]": 1.0}, (), is_factor=True)
    if knobs[name].recommended is not None:
        table = recommended.centers(name, space.train, space.search, knobs)
        if table is None:
            return None
        depends, values = table
        return Center({key_of(key): value for key, value in values.items()}, depends, is_factor=True)
    if parsing.is_within_budget(name):
        return Center({"[]": float(space.budget.max_steps)})
    return None


def _of_ledger(ledger: Ledger, pair: _Pair, likeness: float) -> list[EarlierStudy]:
    """A study's own trials, and what was imported into it, as earlier studies."""
    history = ledger.history()
    name = ledger.study
    shared = [knob for knob in pair.earlier.search if knob in pair.space.search and pair.is_shared(knob)]
    last_rung = pair.earlier.budget.rungs[-1]
    neutral = functools.partial(pair.neutral, names=shared)
    studies = [of_trials(name, likeness, without_imported(history), last_rung, neutral)]
    by_measure: dict[str, list[Configuration]] = {}
    for trial in history:
        if trial.origin == IMPORTED and trial.rungs and trial.failure is None:
            by_measure.setdefault(str(trial.rungs[-1].metrics.get(MEASURE, "value")), []).append(trial)
    for measure, trials in sorted(by_measure.items()):
        label = f"{name} (imported{'' if measure == 'value' else ', ' + measure})"
        last = max(trial.steps for trial in trials)
        ended = [_at_end(trial, last) for trial in trials]
        neutral = functools.partial(pair.neutral, names=_given_by_all(trials, pair))
        studies.append(of_trials(label, likeness, ended, last, neutral))
    return [study for study in studies if study is not None]


def _given_by_all(trials: Sequence[Configuration], pair: _Pair) -> list[str]:
    """Knobs of the new space that every log gives and that differ between them.

    Steps are left out: a log may not say of how many they are.
    """
    given = []
    for name in pair.space.search:
        values = [(trial.params or {}).get(name) for trial in trials]
        is_told = all(name in (trial.params or {}) for trial in trials) and any(value != values[0] for value in values)
        if is_told and not parsing.is_within_budget(name) and pair.is_shared(name):
            given.append(name)
    return given


def _at_end(trial: Configuration, step: int) -> Configuration:
    """The trial with its last value alone, at `step`: logs evaluate at steps of their own."""
    return dataclasses.replace(trial, rungs=(dataclasses.replace(trial.rungs[-1], step=step),))
