"""The seam to trackers: what each is asked for, and what it gets of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class ClipRow:
    """A clip of an evaluation as a table's row."""

    name: str
    errors: int  # words
    words: int  # of the reference
    reference: str
    hypothesis: str
    mp3: bytes | None = None  # None where the clip can no longer be read


CLIP_COLUMNS = ("clip", "errors", "words", "reference", "hypothesis", "sound")
CLIP_TABLE = "worst_clips"


@dataclass(frozen=True)
class StepEntry:
    """All that was measured at one step."""

    step: int
    time: float  # seconds since 1970
    scalars: Mapping[str, float]
    worst_clips: Sequence[ClipRow] = ()


@dataclass(frozen=True)
class TrackedRun:
    """A trial, or a final training, as it is to be mirrored; in JSON between processes.

    `rungs` are committed results. Curves come from the event files: up to the last rung, or where `is_final` to the
    last event.
    """

    id: str  # unique among all runs of all studies
    name: str
    project: str  # unique among the studies of all databases
    params: Mapping[str, Any]
    facts: Mapping[str, Any]  # what a person wants to know beside: state, reason, seed
    ended: bool
    failed: bool
    created: float  # of the study, in seconds since 1970: the time of results without event files
    rungs: Sequence[tuple[int, Mapping[str, float]]] = ()
    data: Mapping[str, Any] = field(default_factory=dict)  # fields of DataConfig
    scores: str | None = None  # folder of the tables of clips; None where it is on another machine
    events: str | None = None  # folder of TensorBoard's event files
    is_final: bool = False
    artifact: Mapping[str, str] = field(default_factory=dict)  # the model's files by name

    @property
    def signature(self) -> list[Any]:
        """Differs where there is more to mirror."""
        return [self.rungs[-1][0] if self.rungs else 0, self.facts.get("state"), sorted(self.artifact)]


class Tracker(Protocol):
    """One tracker's client, for one run at a time: `begin`, then the others, then `finish`.

    Each may raise whatever its client raises. Called again with the same content, none doubles anything.
    """

    def begin(self, run: TrackedRun) -> int:
        """Start the run, or resume it; returns the last step that the tracker has, 0 for none."""

    def log(self, entries: Sequence[StepEntry]) -> None:
        """Add entries of later steps, in their order."""

    def artifact(self, name: str, files: Mapping[str, Path]) -> None:
        """Keep files, by their names in the artifact, as a new version unless they are the last one's."""

    def finish(self) -> None:
        """Update the run's facts, and return once the tracker has all of it."""
