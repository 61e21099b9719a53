"""95 % intervals of a study's WERs, from the errors and reference words by clip that its ledger holds."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from search.records import Configuration
from tmsearch.trial.facts import StudyFacts

if TYPE_CHECKING:
    from tmsearch.evaluation.bootstrap import Interval


def interval(facts: StudyFacts, trial: Configuration, step: int | None = None) -> Interval | None:
    """Of a trial's WER at `step`, or at its last rung; None where its errors by clip are unknown."""
    errors = trial.errors(step or trial.steps)
    words = facts.words.get(_fold(trial))
    if errors is None or words is None:
        return None
    return _wer_interval(tuple(errors), words)


def last_intervals(facts: StudyFacts, trials: Sequence[Configuration]) -> dict[int, Interval]:
    """Of many trials' WERs at their last rung, by number, in a fraction of the time that one by one takes.

    Those whose errors by clip are unknown are left out.
    """
    if not trials:
        return {}
    from tmsearch.evaluation import bootstrap  # numpy, which a study without results does not need

    by_fold: dict[int, list[Configuration]] = {}
    for trial in trials:
        by_fold.setdefault(_fold(trial), []).append(trial)
    known: dict[int, Interval] = {}
    for fold, of_fold in by_fold.items():
        words = facts.words.get(fold, ())
        for start in range(0, len(of_fold), _AT_ONCE):
            batch = of_fold[start : start + _AT_ONCE]
            errors = [trial.errors(trial.steps) or () for trial in batch]
            for trial, of_trial in zip(batch, bootstrap.wer_intervals(errors, words), strict=True):
                if of_trial is not None:
                    known[trial.number] = of_trial
    return known


_AT_ONCE = 50  # trials whose errors by clip are read into lists, 4 kB for 500 clips


def _fold(trial: Configuration) -> int:
    return int((trial.params or {}).get("fold", 0))


def baseline_interval(facts: StudyFacts, model: str) -> Interval | None:
    """Of a zero-shot baseline's WER; None where its errors by clip are unknown."""
    baseline = facts.baselines.get(model)
    words = facts.words.get(0)
    if baseline is None or baseline.errors is None or words is None:
        return None
    return _wer_interval(baseline.errors, words)


@functools.lru_cache(maxsize=256)
def _wer_interval(errors: tuple[int, ...], words: tuple[int, ...]) -> Interval | None:
    """Cached, since `status --watch` and the live lines need the same intervals again and again."""
    from tmsearch.evaluation import bootstrap

    return bootstrap.wer_interval(errors, words)


def bounds(interval: Interval | None) -> tuple[float, float] | None:
    """An interval for a page."""
    return None if interval is None else (interval.low, interval.high)


def as_json(interval: Interval | None) -> list[float] | None:
    """An interval for a script."""
    return None if interval is None else [interval.low, interval.high]


def bracketed(interval: Interval | None) -> str:
    """` [.194, .365]` to follow a WER; empty where the interval is unknown."""
    return "" if interval is None else f" [{_three_digits(interval.low)}, {_three_digits(interval.high)}]"


def ranged(interval: Interval | None) -> str:
    """`.194-.365` for a table; empty where the interval is unknown."""
    return "" if interval is None else f"{_three_digits(interval.low)}-{_three_digits(interval.high)}"


def _three_digits(rate: float) -> str:
    return f"{rate:.3f}".removeprefix("0") if rate < 0.9995 else f"{rate:.2f}"
