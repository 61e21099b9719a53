"""What the draws of a new study make of what earlier studies know.

Each earlier study gives a Gaussian process over the shared knobs. Its mean is a trend of the new study's own process,
with a weight that the new study's values teach (gp.py): what is known says where to look, own values overrule it. Of
studies that are much alike the best configurations are tried themselves. Shapes: n: configurations; features: of shared
knobs; trends: one an earlier study.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.samplers import gp
from search.samplers.earlier import EarlierStudies
from search.space import encoding
from search.space.distributions import Choice, Range
from search.space.knobs import is_among

Array = NDArray[np.float64]

# What share of its deviations is expected of the new study's values, of an earlier study of the same model and as much
# data: 1 would be that nothing but noise differs.
_WEIGHT = 0.5
# From this likeness on (models and hours within a factor of ten altogether) the best of an earlier study is tried:
# of one that is less alike it made a study worse (studies/README.md, 2026-11-30).
_TRIED_FROM = math.exp(-1.0)
_OUTSIDE = 0.25  # of a range's width: how far outside of it an earlier value may lie that is tried at its end
_WIDEST = 100.0  # highest over lowest value of a factor whose range begins at 0, for its scale
_SEED = 0  # of the earlier studies' own processes


def of_facts(facts: Mapping[str, Any], search: Mapping[str, Range]) -> Knowledge | None:
    """What a study with these facts draws by; None: it knows nothing of earlier ones."""
    earlier = EarlierStudies.of(facts)
    return None if earlier is None else Knowledge(earlier, search)


class Knowledge:
    """Earlier studies as a new one's draws use them.

    Args:
        earlier: what is known.
        search: the new study's ranges.
    """

    def __init__(self, earlier: EarlierStudies, search: Mapping[str, Range]) -> None:
        self._earlier = earlier
        self._search = search

    @cached_property
    def _processes(self) -> list[gp.Process]:
        """What each earlier study expects of values in neutral terms; fitted once, the same in every process."""
        processes = []
        for study in self._earlier.studies:
            finals = np.array(study.finals)  # [n]
            spread = float(finals.std()) or 1.0
            points = self._features(study.knobs, study.drawn, is_neutral=True)
            values = (finals - float(finals.mean())) / spread  # [n]
            data = gp.Data(points, values, np.array(study.variances) / spread**2, points.shape[1])
            processes.append(gp.fit(data, np.random.default_rng(_SEED)))
        return processes

    def trends(self, drawn: Sequence[Mapping[str, Any]]) -> Array:
        """[m, trends] What each earlier study makes expect of configurations of the new one, in deviations of values.

        All together make expect no more than one study does that is alike in all.
        """
        likeness = math.fsum(study.likeness for study in self._earlier.studies)
        trends = []
        for study, process in zip(self._earlier.studies, self._processes, strict=True):
            share = _WEIGHT * study.likeness / max(1.0, likeness)
            trends.append(share * process.mean(self._features(study.knobs, drawn, is_neutral=False)))
        return np.stack(trends, axis=1)

    def _features(self, names: Sequence[str], rows: Sequence[Mapping[str, Any]], *, is_neutral: bool) -> Array:
        """[m, features] As search.space.encoding has them, by the new study's ranges, but in neutral terms."""
        columns = []
        for name in names:
            searched = self._search[name]
            values = [row[name] for row in rows]
            if isinstance(searched, Choice):
                for choice in searched.values:
                    columns.append(np.array([encoding.CHOICE_FEATURE * is_among(value, [choice]) for value in values]))
                continue
            numbers = np.array(values, dtype=float)  # [m]
            center = self._earlier.centers.get(name)
            if center is not None and not is_neutral:
                numbers = numbers / np.array([center.of(row) for row in rows])
            columns.append(self._scaled(name, numbers))
        return np.stack(columns, axis=1)

    def _scaled(self, name: str, numbers: Array) -> Array:
        """[m] Numbers in neutral terms, in units of the range; where it begins makes no difference to a process."""
        searched = self._search[name]
        assert not isinstance(searched, Choice)
        center = self._earlier.centers.get(name)
        if searched.log or (center is not None and center.is_factor):
            ratio = searched.high / searched.low if searched.low > 0 else _WIDEST
            return np.asarray(np.log(numbers) / math.log(ratio))
        divisor = 1.0 if center is None else center.of({})
        return np.asarray(numbers * divisor / (searched.high - searched.low))

    def best(self, rank: int, base: Mapping[str, Any]) -> dict[str, Any] | None:
        """The values of one of the best earlier configurations, within the new study's ranges.

        Args:
            rank: 0 for the best of the study that is most alike, then the best of the next, at last the second best.
            base: a configuration of the new study, whose values stay where the earlier one has none.

        Returns:
            The configuration; None where too few are known of studies that are much alike, in or near these ranges.
        """
        alike = [study for study in self._earlier.studies if study.likeness >= _TRIED_FROM]
        if not alike:
            return None
        study = alike[rank % len(alike)]
        placed = []
        for index in np.argsort(study.finals, kind="stable"):
            drawn = self._placed(study.drawn[index], base)
            if drawn is not None:
                placed.append(drawn)
        place = rank // len(alike)
        return placed[place] if place < len(placed) else None

    def _placed(self, row: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any] | None:
        """`base` with a row's values; None where a number lies far outside of its range: its end may be no good."""
        drawn = dict(base)
        for name, value in row.items():
            searched = self._search[name]
            if isinstance(searched, Choice) and is_among(value, searched.values):
                drawn[name] = value
        for name, value in row.items():  # numbers, whose center may depend on choices
            searched = self._search[name]
            if isinstance(searched, Choice):
                continue
            center = self._earlier.centers.get(name)
            number = value * (1.0 if center is None else center.of(drawn))
            if not -_OUTSIDE <= encoding.position(searched, number) <= 1.0 + _OUTSIDE:
                return None
            drawn[name] = encoding.nearest(searched, number)
        return drawn
