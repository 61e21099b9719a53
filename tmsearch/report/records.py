"""What a study's page shows: frozen records that know neither a database nor Optuna."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

GENERATOR = "tmsearch report"  # in a page's head: only a file that has it is overwritten
Bounds = tuple[float, float]  # of a 95 % interval


@dataclass(frozen=True)
class TrialRow:
    """One configuration. `state` is a key of charts.STATES, `curve` holds (step, WER), `knobs` the searched ones."""

    number: int
    state: str
    knobs: Mapping[str, Any]
    knobs_text: str  # on one line
    curve: tuple[tuple[int, float], ...]
    seconds: float
    interval: Bounds | None = None
    reason: str = ""
    is_best: bool = False

    @property
    def steps(self) -> int:
        return self.curve[-1][0] if self.curve else 0

    @property
    def wer(self) -> float | None:
        return self.curve[-1][1] if self.curve else None


@dataclass(frozen=True)
class JudgedRung:
    """How many configurations were judged at a rung, how many of them were promoted, and their WERs."""

    step: int
    judged: int
    promoted: int
    best: float
    median: float


@dataclass(frozen=True)
class ReferenceScore:
    """A WER that the best is compared with, such as the zero-shot baseline's."""

    name: str
    wer: float
    interval: Bounds | None = None
    remark: str = ""


@dataclass(frozen=True)
class StudyAnswer:
    """What the study says so far. `headline` and `certainty` are sentences; `commands` are (command, what it does)."""

    best: TrialRow | None
    headline: str
    references: tuple[ReferenceScore, ...]
    recipe: tuple[tuple[str, str], ...]
    certainty: tuple[str, ...]
    cost: tuple[tuple[str, str], ...]
    commands: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class SpentResult:
    """A result, and the seconds of training and evaluation that the study had spent when it was recorded."""

    seconds: float
    wer: float
    number: int
    step: int


@dataclass(frozen=True)
class KnobWeight:
    """A knob's share of all importances with its 95 % interval; `chance` is the share that chance alone reaches."""

    name: str
    share: float
    low: float
    high: float
    chance: float

    @property
    def above_chance(self) -> bool:
        return self.share > self.chance


@dataclass(frozen=True)
class KnobSlice:
    """Results by one knob as (drawn value, WER); `choices` of a knob that is no number."""

    name: str
    is_log: bool
    choices: tuple[Any, ...] | None
    points: tuple[tuple[Any, float], ...]


@dataclass(frozen=True)
class KnobSlices:
    """Comparable results by knob: (row, WER at `rung`), at the rung that most configurations reached."""

    rung: str
    results: tuple[tuple[TrialRow, float], ...]
    models: tuple[tuple[str, float | None], ...]  # (name, millions of parameters), the smallest first
    knobs: tuple[KnobSlice, ...]
    measure: str = "WER"


@dataclass(frozen=True)
class KnobImportances:
    """Importances and how they were computed; `missing` says why where there are none."""

    weights: tuple[KnobWeight, ...]
    method: str
    missing: str = ""


@dataclass(frozen=True)
class MatchedPair:
    """Two trials. `difference` is the first value's WER less the second's, `low` to `high` its interval over clips."""

    first: int
    second: int
    difference: float
    low: float
    high: float
    rate_factor: float | None  # between the learning rates


@dataclass(frozen=True)
class MatchedPairs:
    """The mean difference over pairs, with a 95 % interval of a bootstrap over pairs and clips."""

    knob: str
    values: tuple[str, str]
    pairs: tuple[MatchedPair, ...]
    difference: float
    low: float
    high: float
    clips: int
    unmatched: int  # configurations without a partner
    method: str


@dataclass(frozen=True)
class StudyPage:
    """A study's page except its clips and its data. `state` and `data` are sentences, `space` is YAML."""

    name: str
    created: str
    state: str
    data: str
    answer: StudyAnswer
    trials: tuple[TrialRow, ...]
    rungs: tuple[JudgedRung, ...]
    zero_shot: tuple[ReferenceScore, ...]
    results: tuple[SpentResult, ...]
    importances: KnobImportances
    matched: tuple[MatchedPairs, ...]
    slices: KnobSlices | None
    environment: tuple[tuple[str, str], ...]
    space: str
    notes: tuple[str, ...] = ()
    measure: str = "WER"  # what is minimised, which the values of trials, rungs and references are of
