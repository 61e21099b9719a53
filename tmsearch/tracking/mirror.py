"""Brings a tracker up to date with a run: what is committed and not mirrored yet, once."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

from tmsearch.config import DataConfig
from tmsearch.errors import InputError
from tmsearch.evaluation.scores import ClipScore, read_scores, worst_first
from tmsearch.media.clip_reader import ClipReader
from tmsearch.tracking.events import STEP_TAGS, StepScalars, read_curves
from tmsearch.tracking.memory import Memory
from tmsearch.tracking.tracker import ClipRow, StepEntry, TrackedRun, Tracker

ROWS = 10  # of the table of the worst clips
_TEXT_LENGTH = 500  # characters of a cell
_FINAL_TAGS = (*STEP_TAGS, "wer", "wer_raw", "cer", "wer_long")
_LOGGED_AT_ONCE = 1000  # entries; MLflow takes as many metrics in a call


class Mirror:
    """One tracker of one study or final training.

    Args:
        tracker: its client.
        memory: what it has already.
    """

    def __init__(self, tracker: Tracker, memory: Memory) -> None:
        self._tracker = tracker
        self._memory = memory
        self._reader = ClipReader()

    def bring_up_to_date(self, run: TrackedRun, alive: Callable[[], None]) -> bool:
        """Log what the tracker does not have yet; returns whether that was all there will be for this signature.

        A process killed on the way leaves whole steps: the next call goes on after the last one that the tracker has.

        Args:
            alive: called between parts that may take long.
        """
        curves = _read_events(run)
        limit = _limit(run, curves)
        last_step = max(self._tracker.begin(run), self._memory.step(run.id))
        alive()
        entries = self._entries(run, curves, last_step, limit)
        for start in range(0, len(entries), _LOGGED_AT_ONCE):
            self._tracker.log(entries[start : start + _LOGGED_AT_ONCE])
            alive()
        if run.artifact:
            self._tracker.artifact(f"{run.id}-model", {name: Path(file) for name, file in run.artifact.items()})
        self._tracker.finish()
        is_complete = not run.rungs or limit >= run.rungs[-1][0]
        mirrored = max(last_step, entries[-1].step if entries else 0)
        self._memory.keep(run.id, mirrored, run.signature if is_complete else None)
        return is_complete

    def _entries(
        self, run: TrackedRun, curves: dict[int, StepScalars], last_step: int, limit: float
    ) -> list[StepEntry]:
        rungs = dict(run.rungs)
        entries = []
        for step in sorted({*curves, *rungs}):
            if not last_step < step <= limit:
                continue
            logged = curves.get(step, StepScalars(run.created + step))
            rates = {name: value for name, value in rungs.get(step, {}).items() if math.isfinite(value)}
            is_evaluation = step in rungs or "wer" in logged.scalars
            clips = self._worst_clips(run, step) if is_evaluation else ()
            entries.append(StepEntry(step, logged.time, {**logged.scalars, **rates}, clips))
        return entries

    def _worst_clips(self, run: TrackedRun, step: int) -> list[ClipRow]:
        """The clips with the most errors at `step`, with sound; none where the table is not on this machine."""
        if not run.scores:
            return []
        scores = worst_first(read_scores(Path(run.scores), step))[:ROWS]
        return [_row(score, self._sound(run, score)) for score in scores]

    def _sound(self, run: TrackedRun, score: ClipScore) -> bytes | None:
        try:
            return self._reader.media(DataConfig(**run.data), score).mp3
        except InputError:  # the dataset is gone, or not the one that was scored
            return None


def _read_events(run: TrackedRun) -> dict[int, StepScalars]:
    if not run.events:
        return {}
    return read_curves(Path(run.events), _FINAL_TAGS if run.is_final else STEP_TAGS)


def _limit(run: TrackedRun, curves: Mapping[int, StepScalars]) -> float:
    """The last step to mirror. What lies past the last result may be trained again, with other values.

    Where steps are trained again for want of a checkpoint, their events may be missing for a while: they are waited
    for, so that no step is logged without them. A final training's evaluations wait for its end, as its tables do.
    """
    if run.ended and (run.is_final or run.failed):
        return math.inf
    last_event = max(curves, default=0)
    if run.is_final:
        evaluations = [step for step, logged in curves.items() if "wer" in logged.scalars]
        return min(evaluations, default=last_event + 1) - 1
    steps = run.rungs[-1][0] if run.rungs else 0
    if run.ended or not last_event:
        return steps
    return min(steps, last_event)


def _row(score: ClipScore, mp3: bytes | None) -> ClipRow:
    texts = (score.reference[:_TEXT_LENGTH], score.hypothesis[:_TEXT_LENGTH])
    return ClipRow(score.name, score.edits, score.words, *texts, mp3)
