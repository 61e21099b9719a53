"""What a page is made of: frozen records, with nothing of a database or of Optuna in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Bounds = tuple[float, float]  # of a 95 % interval


@dataclass(frozen=True)
class TrialRow:
    """One configuration. `state` is one of STATES; `curve` holds (step, WER); `knobs` the searched ones."""

    number: int
    state: str
    knobs: Mapping[str, Any]
    what: str  # the knobs on one line
    curve: tuple[tuple[int, float], ...]
    seconds: float
    interval: Bounds | None = None
    reason: str = ""
    leads: bool = False

    @property
    def steps(self) -> int:
        return self.curve[-1][0] if self.curve else 0

    @property
    def wer(self) -> float | None:
        return self.curve[-1][1] if self.curve else None


@dataclass(frozen=True)
class RungSummary:
    """A place where configurations are judged: how many were, and how many of them went on."""

    step: int
    judged: int
    went_on: int
    best: float
    median: float


@dataclass(frozen=True)
class ReferenceScore:
    """Something to hold the best against: its name, its WER, its interval, and a remark."""

    name: str
    wer: float
    interval: Bounds | None = None
    remark: str = ""


@dataclass(frozen=True)
class StudyAnswer:
    """What the study says so far. `sure` are sentences, `commands` what comes next."""

    best: TrialRow | None
    what: str  # the best's place, in a sentence
    against: tuple[ReferenceScore, ...]
    recipe: tuple[tuple[str, str], ...]
    sure: tuple[str, ...]
    confirmed: bool
    cost: tuple[tuple[str, str], ...]
    commands: tuple[tuple[str, str], ...]  # (command, what it does)


@dataclass(frozen=True)
class SpentResult:
    """One result at the time that the study had spent until then."""

    seconds: float
    wer: float
    number: int
    step: int


@dataclass(frozen=True)
class KnobWeight:
    """A knob's share of all importances, its interval, and what chance alone reaches."""

    name: str
    share: float
    low: float
    high: float
    chance: float

    @property
    def told(self) -> bool:
        return self.share > self.chance


@dataclass(frozen=True)
class KnobSlices:
    """Comparable results for pictures by knob: (line, WER at the rung that most reached), and where that is."""

    where: str
    results: tuple[tuple[TrialRow, float], ...]
    models: tuple[tuple[str, float | None], ...]  # (name, millions of parameters), the smallest first
    every: str | None  # optuna.visualization's picture of every knob, JSON


@dataclass(frozen=True)
class KnobImportances:
    """Importances and how they were found; `why` where there are none."""

    weights: tuple[KnobWeight, ...]
    how: str
    why: str = ""


@dataclass(frozen=True)
class StudyPage:
    """A study's page but for its clips and its data."""

    name: str
    made: str
    state: str  # in a sentence
    data: str  # in a sentence
    answer: StudyAnswer
    lines: tuple[TrialRow, ...]
    rungs: tuple[RungSummary, ...]
    zero_shot: tuple[ReferenceScore, ...]
    spent: tuple[SpentResult, ...]
    mattered: KnobImportances
    slices: KnobSlices | None
    environment: tuple[tuple[str, str], ...]
    space: str  # YAML
    notes: tuple[str, ...] = ()
