"""How sure a study's error rates are: the ledger's errors and words by clip, as intervals and as one recipe's runs."""

from __future__ import annotations

import functools

from search.records import Configuration
from tmsearch.evaluation import bootstrap
from tmsearch.evaluation.bootstrap import Interval
from tmsearch.trial.facts import StudyFacts


def interval(facts: StudyFacts, one: Configuration, step: int | None = None) -> Interval | None:
    """Of the WER at `step`, or at the last rung; None where errors by clip are not known."""
    errors = one.errors(step or one.steps)
    words = facts.words.get(int((one.params or {}).get("fold", 0)))
    return _interval(tuple(errors), words) if errors is not None and words is not None else None


@functools.lru_cache(maxsize=4096)
def _interval(errors: tuple[int, ...], words: tuple[int, ...]) -> Interval | None:
    """Remembered, since `status --watch` and the live lines ask again and again."""
    return bootstrap.wer_interval(errors, words)


def baseline_interval(facts: StudyFacts, model: str) -> Interval | None:
    """Of the untouched checkpoint's WER."""
    baseline = facts.baselines.get(model)
    words = facts.words.get(0)
    if baseline is None or baseline.errors is None or words is None:
        return None
    return _interval(baseline.errors, words)


def bounds(one: Interval | None) -> tuple[float, float] | None:
    """An interval as a page has it."""
    return None if one is None else (one.low, one.high)


def as_json(one: Interval | None) -> list[float] | None:
    return None if one is None else [one.low, one.high]


def bracketed(one: Interval | None) -> str:
    """` [.194, .365]`, after a WER; nothing where it is not known."""
    return "" if one is None else f" [{_short(one.low)}, {_short(one.high)}]"


def ranged(one: Interval | None) -> str:
    """`.194-.365`, in a table."""
    return "" if one is None else f"{_short(one.low)}-{_short(one.high)}"


def _short(rate: float) -> str:
    """Three digits."""
    return f"{rate:.3f}".removeprefix("0") if rate < 0.9995 else f"{rate:.2f}"
