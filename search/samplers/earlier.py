"""What earlier studies know of the knobs that a new study shares with them: recorded when it is made, and kept.

Values are in neutral terms, so that models and lengths of trainings compare: a knob with a recommended value as a
factor on that, steps as a share of the training. earlier_studies.py gathers it, knowledge.py draws by it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

FACT = "earlier"  # key of a study's fact; its JSON is persisted and does not change


@dataclass(frozen=True)
class Center:
    """What a knob's values are divided by to be in neutral terms.

    Attributes:
        divisors: by the JSON list of the values of `depends`, searched knobs, in their order.
        depends: names of knobs.
        is_factor: whether quotients count by their logarithm, whatever the knob's range says.
    """

    divisors: Mapping[str, float]
    depends: tuple[str, ...] = ()
    is_factor: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain values, from which from_json makes an equal record."""
        return {"divisors": dict(self.divisors), "depends": list(self.depends), "is_factor": self.is_factor}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Center:
        """The inverse of to_json."""
        return cls(dict(raw["divisors"]), tuple(raw["depends"]), bool(raw["is_factor"]))

    def of(self, drawn: Mapping[str, Any]) -> float:
        """The divisor for a configuration."""
        return self.divisors[key_of(drawn[name] for name in self.depends)]


@dataclass(frozen=True)
class EarlierStudy:
    """An earlier study as a new one sees it.

    Attributes:
        name: of the study.
        likeness: of its model and data to the new one's, above 0, at most 1.
        drawn: values of the shared knobs, in neutral terms; every row has the same knobs.
        finals: the logarithm of each one's value in full, as far as its curve tells.
        variances: of `finals`.
    """

    name: str
    likeness: float
    drawn: tuple[Mapping[str, Any], ...]
    finals: tuple[float, ...]
    variances: tuple[float, ...]

    @property
    def knobs(self) -> list[str]:
        """The shared knobs, sorted."""
        return sorted(self.drawn[0])


@dataclass(frozen=True)
class EarlierStudies:
    """All that is known when a study is made: of earlier studies, the most alike first, and its own centers by knob."""

    studies: tuple[EarlierStudy, ...]
    centers: Mapping[str, Center]

    def to_json(self) -> dict[str, Any]:
        """Plain values, from which from_json makes an equal record."""
        studies = [
            {
                "name": study.name,
                "likeness": study.likeness,
                "drawn": [dict(row) for row in study.drawn],
                "finals": list(study.finals),
                "variances": list(study.variances),
            }
            for study in self.studies
        ]
        return {"studies": studies, "centers": {name: center.to_json() for name, center in self.centers.items()}}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> EarlierStudies:
        """The inverse of to_json."""
        studies = tuple(
            EarlierStudy(
                study["name"],
                study["likeness"],
                tuple(study["drawn"]),
                tuple(study["finals"]),
                tuple(study["variances"]),
            )
            for study in raw["studies"]
        )
        return cls(studies, {name: Center.from_json(center) for name, center in raw["centers"].items()})

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> EarlierStudies | None:
        """What a study with these facts knows; None: nothing, as before 0.2.0."""
        return cls.from_json(facts[FACT]) if FACT in facts else None

    def line(self) -> str:
        """What is known, for a person."""
        parts = [f"{len(study.drawn)} of {study.name}" for study in self.studies]
        count = sum(len(study.drawn) for study in self.studies)
        return f"known from earlier studies: {count} configurations ({', '.join(parts)})"

    def line_with_switch(self) -> str:
        """The same where a study begins, with the word that turns it off."""
        return f"{self.line()}; `earlier: off` under budget makes a study without"


def without(facts: Mapping[str, Any]) -> dict[str, Any]:
    """A study's facts less what it knows of earlier ones, which no training needs."""
    return {key: value for key, value in facts.items() if key != FACT}


def likeness(ratios: Sequence[float | None]) -> float:
    """How much an earlier study is like a new one: 1, and a third of that for each factor of ten.

    Args:
        ratios: of the models' sizes, of the hours of data; None: not known, which counts as a factor of ten.
    """
    decades = math.fsum(1.0 if ratio is None else abs(math.log10(ratio)) for ratio in ratios)
    return math.exp(-decades)


def ratio(first: float | None, second: float | None) -> float | None:
    """Of two sizes; None where one of them is not known."""
    return first / second if first and second else None


def key_of(values: Any) -> str:
    """The text that a center's divisor goes by."""
    return json.dumps(list(values))
