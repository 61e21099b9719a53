"""How sure a study's error rates are: the ledger's errors and words by clip, as intervals and as one recipe's runs."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from search.records import Configuration
from tmsearch.evaluation import bootstrap
from tmsearch.evaluation.bootstrap import Interval


def words_of(facts: Mapping[str, Any], fold: int = 0) -> Sequence[int] | None:
    """Reference words by clip of a fold's validation split; None in a study of before they were kept."""
    found: Sequence[int] | None = facts.get(f"words:{fold}")
    return found


def interval(facts: Mapping[str, Any], one: Configuration, step: int | None = None) -> Interval | None:
    """Of the WER at `step`, or at the last rung; None where errors by clip are not known."""
    errors = one.errors(step or one.steps)
    words = words_of(facts, int((one.params or {}).get("fold", 0)))
    return _interval(tuple(errors), tuple(words)) if errors is not None and words is not None else None


@functools.lru_cache(maxsize=4096)
def _interval(errors: tuple[int, ...], words: tuple[int, ...]) -> Interval | None:
    """Remembered, since `status --watch` and the live lines ask again and again."""
    return bootstrap.wer_interval(errors, words)


def baseline_interval(facts: Mapping[str, Any], model: str) -> Interval | None:
    """Of the untouched checkpoint's WER."""
    errors, words = facts.get(f"baseline:{model}", {}).get("errors"), words_of(facts)
    return _interval(tuple(errors), tuple(words)) if errors is not None and words is not None else None


def baselines(facts: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The untouched checkpoints' results by model."""
    return {key.removeprefix("baseline:"): value for key, value in sorted(facts.items()) if key.startswith("baseline:")}


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
