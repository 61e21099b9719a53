"""Frozen records of a study: what the ledger says, independent of the database."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from search.process_id import ProcessId

State = Literal["queued", "running", "paused", "pruned", "finished", "failed"]
ENDED: tuple[State, ...] = ("pruned", "finished", "failed")
# Failures that say something about the parameters: the sampler counts them as bad. A crash says nothing.
BAD_PARAMETERS = ("diverged", "oom")
IMPORTED = "imported"  # the origin of what was trained elsewhere: never the best of a study, never scheduled
# A training process that dies at the same step for the third time will die again.
CRASHES_ALLOWED = 2
# It may have been killed (SIGKILL) by a person, by a batch scheduler, or by a kernel that is out of memory: the last
# does it again, so the number is limited, but larger.
KILLS_ALLOWED = 5


@dataclass(frozen=True, slots=True)
class Rung:
    """One committed result: the value at `step` and whatever else was measured there."""

    step: int
    value: float
    metrics: Mapping[str, Any]
    version: str | None = None  # of the code that trained it
    worker: str | None = field(default=None, compare=False)  # that trained it: a ProcessId


@dataclass(frozen=True)
class Configuration:
    """One set of parameters: what was tried, how far its training got and why it ended."""

    number: int
    origin: str
    drawn: Mapping[str, Any] | None
    params: Mapping[str, Any] | None
    state: State
    reason: str | None = None
    failure: str | None = None
    rungs: tuple[Rung, ...] = ()
    worker: str | None = None
    progress: Mapping[str, Any] = field(default_factory=dict)
    revision: int = 1
    published: int = 0
    target: int = 0  # the last step of the segment that was started last
    token: int = 0  # of the last claim

    @property
    def unfinished(self) -> bool:
        """Whether a segment was started and has no result yet."""
        return self.target > self.steps and not self.ended

    def errors(self, step: int) -> Sequence[int] | None:
        """Errors by clip at `step`, in the study's order of clips; None if they were not recorded."""
        for rung in self.rungs:
            if rung.step == step:
                errors: Sequence[int] | None = rung.metrics.get("errors")
                return errors
        return None

    @property
    def steps(self) -> int:
        """The last rung that has a result; 0 before the first."""
        return self.rungs[-1].step if self.rungs else 0

    @property
    def value(self) -> float | None:
        """The value at the last rung reached."""
        return self.rungs[-1].value if self.rungs else None

    @property
    def curve(self) -> dict[int, float]:
        """The value by step."""
        return {rung.step: rung.value for rung in self.rungs}

    @property
    def metrics(self) -> Mapping[str, Any]:
        """What was measured at the last rung reached."""
        return self.rungs[-1].metrics if self.rungs else {}

    @property
    def ended(self) -> bool:
        """Whether it is pruned, finished or failed."""
        return self.state in ENDED

    def total(self, metric: str) -> float:
        """The sum over the rungs of a cost such as train_seconds."""
        return math.fsum(float(rung.metrics.get(metric) or 0.0) for rung in self.rungs)

    @cached_property
    def seconds(self) -> float:
        """What it cost so far in seconds: training, what was trained again for want of a checkpoint, evaluation."""
        return self.total("train_seconds") + self.total("repeated_seconds") + self.total("eval_seconds")

    @property
    def seconds_a_step(self) -> float:
        """What a step of it takes that is trained once, its share of the evaluations included; 0 before a result."""
        if not self.steps:
            return 0.0
        return (self.total("train_seconds") + self.total("eval_seconds")) / self.steps

    @property
    def saved_step(self) -> int:
        """The step that its training goes on from: of its newest checkpoint, as far as its last result knows."""
        return int(self.metrics.get("saved_step", self.steps))

    @property
    def worker_name(self) -> str | None:
        """host:pid of the worker that holds it now."""
        process = ProcessId.parse(self.worker) if self.worker else None
        return process.display_name if process else None


@dataclass(frozen=True)
class StudyRecord:
    """A study's own row in the ledger; `space` is the snapshot that Space.from_json reads."""

    name: str
    space: Mapping[str, Any]
    fingerprint: str
    seed: int
    trials: int
    stopping: bool
    version: str
    created: float
    stop_reason: str | None = None

    @property
    def objective(self) -> str:
        """What is minimised, one of space.budget.OBJECTIVES."""
        return str(self.space.get("budget", {}).get("objective", "wer"))

    @property
    def measure(self) -> str:
        """The objective for a person, see measure_name."""
        return measure_name(self.objective)


@dataclass(frozen=True)
class WorkerRecord:
    """A worker that signed in. Times are the database's, in seconds since 1970."""

    identity: str  # a ProcessId
    location: str  # where it runs, in words: a GPU, a Slurm job, a node of Ray
    version: str
    since: float
    seen: float
    alive: bool  # seen within a lease, and not known to be dead

    @property
    def display_name(self) -> str:
        """host:pid, and where that is."""
        process = ProcessId.parse(self.identity)
        return f"{process.display_name if process else self.identity} ({self.location})"


@dataclass(frozen=True)
class Claim:
    """The right to run one segment of one configuration, as long as nobody holds a higher token."""

    study: str
    number: int
    token: int
    worker: str
    drawn: Mapping[str, Any] | None
    params: Mapping[str, Any] | None
    first_step: int
    last_step: int
    history: tuple[Configuration, ...]


def measure_name(objective: str) -> str:
    """One of space.budget.OBJECTIVES for a person: WER, CER, long WER, mean WER."""
    return {"wer_long": "long WER", "mean": "mean WER"}.get(objective, objective.upper())


def drawn_key(drawn: Mapping[str, Any]) -> str:
    """Equal for equal drawn values of equal types: 1, 1.0 and true are three values."""
    return json.dumps(dict(drawn), sort_keys=True)


def default_configuration(history: Sequence[Configuration]) -> Configuration | None:
    """The default recipe's own training: the first `start` entry that has a result."""
    for configuration in history:
        if configuration.origin == "start" and configuration.rungs:
            return configuration
    return None


def best_configuration(history: Sequence[Configuration]) -> Configuration | None:
    """The lowest value at the highest rung that any configuration reached; ties go to the lower number.

    Values at different rungs do not compare, so a lower value at an earlier rung does not win.
    """
    usable = [
        configuration
        for configuration in history
        if configuration.rungs
        and configuration.failure is None
        and math.isfinite(configuration.rungs[-1].value)
        and configuration.origin != IMPORTED
    ]
    return min(usable, key=lambda trial: (-trial.steps, trial.rungs[-1].value, trial.number), default=None)


def code_versions(history: Sequence[Configuration]) -> dict[str, int]:
    """How many results each version of the code gave, the first to give one first."""
    counts: dict[str, int] = {}
    for configuration in history:
        for rung in configuration.rungs:
            if rung.version:
                counts[rung.version] = counts.get(rung.version, 0) + 1
    return counts
