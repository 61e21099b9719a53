"""95 % intervals of a study's WERs, from the errors and reference words by clip that its ledger holds."""

from __future__ import annotations

import functools

from search.records import Configuration
from tmsearch.evaluation import bootstrap
from tmsearch.evaluation.bootstrap import Interval
from tmsearch.trial.facts import StudyFacts


def interval(facts: StudyFacts, trial: Configuration, step: int | None = None) -> Interval | None:
    """Of a trial's WER at `step`, or at its last rung; None where its errors by clip are unknown."""
    errors = trial.errors(step or trial.steps)
    words = facts.words.get(int((trial.params or {}).get("fold", 0)))
    if errors is None or words is None:
        return None
    return _wer_interval(tuple(errors), words)


def baseline_interval(facts: StudyFacts, model: str) -> Interval | None:
    """Of a zero-shot baseline's WER; None where its errors by clip are unknown."""
    baseline = facts.baselines.get(model)
    words = facts.words.get(0)
    if baseline is None or baseline.errors is None or words is None:
        return None
    return _wer_interval(baseline.errors, words)


@functools.lru_cache(maxsize=4096)
def _wer_interval(errors: tuple[int, ...], words: tuple[int, ...]) -> Interval | None:
    """Cached, since `status --watch` and the live lines need the same intervals again and again."""
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
