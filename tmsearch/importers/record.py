"""One hand-run training as its log records it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from tmsearch.errors import InputError

Measure = Literal["raw", "normalised"]  # whether case and punctuation count in the WER
Ending = Literal["finished", "crashed", "diverged", "unknown"]
MOST_STEPS = 10**9  # no training has more
Curve = tuple[tuple[int, float], ...]  # (step, WER), in the order of steps


@dataclass(frozen=True)
class HandRun:
    """One training as its log records it: what the log does not say stays empty.

    `params` hold knobs of TrainConfig by name; `curve` is the WER at each step that was evaluated, a fraction unless
    the log has per cent; `measure` is None where the log does not say. `digest` is a sha256 of what was read, by
    which a second import recognizes the run.
    """

    name: str
    digest: str
    params: Mapping[str, Any]
    curve: Curve
    ending: Ending
    reason: str
    last_step: int
    measure: Measure | None = None
    data: Mapping[str, Any] = field(default_factory=dict)  # dataset, train_clips, validation_clips
    remarks: tuple[str, ...] = ()  # on how the log was read, for a person


def number(value: Any) -> float | None:
    """A number in a log, as text or not; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def whole_number(value: Any) -> int | None:
    """A count of steps or clips in a log, 20 or 20.0; None for anything else."""
    count = number(value)
    return int(count) if count is not None and count.is_integer() and 0 <= count < MOST_STEPS else None


def digest(*parts: str) -> str:
    """The sha256 of `parts`, which separates them."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def by_step(wers: Mapping[int, float]) -> Curve:
    """WERs in the order of their steps."""
    return tuple(sorted(wers.items()))


def in_fractions(run: HandRun, file: Path, percent: bool | None) -> HandRun:
    """The run with its WERs as fractions.

    Args:
        run: As its log has it.
        file: The log, for the error message.
        percent: Whether WERs are per cent; None where nobody said.

    Raises:
        InputError: Nobody said, and a WER above 3 looks like per cent.
    """
    highest = max((wer for _, wer in run.curve), default=0.0)
    if percent is None and highest > 3:
        raise InputError(f"{file}: --percent: WERs up to {highest:g}: are they per cent? say --percent or --no-percent")
    if not percent:
        return run
    return replace(run, curve=tuple((step, wer / 100) for step, wer in run.curve))
