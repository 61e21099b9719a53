"""One value of a knob against another: similar configurations paired across it, compared on the same clips."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from tmsearch.report.records import MatchedPair, MatchedPairs

FEWEST_PAIRS = 5  # fewer say nothing about other configurations
MAX_FACTOR = 2.0  # where another number differs as much, or another choice differs at all, there is no pair
_RESAMPLES = 4000
_RESAMPLES_AT_ONCE = 250  # 1 MB of counts for 500 clips
_FIRSTS_AT_ONCE = 100  # whose distances are computed, in half a dozen steps of as many numbers
_NO_PAIR = 1e6  # cost of a pair that must not be made
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class MatchCandidate:
    """A configuration with its errors by clip at the rung of the comparison.

    `has_first` says which of the two values it has; `knobs` are the other searched knobs except the model.
    """

    number: int
    has_first: bool
    model: str
    knobs: Mapping[str, Any]
    errors: Sequence[int]


Couple = tuple[MatchCandidate, MatchCandidate]


def match_pairs(
    knob: str, values: tuple[str, str], candidates: Sequence[MatchCandidate], words: Sequence[int]
) -> MatchedPairs | None:
    """Compares the two values of a knob over the best one-to-one matching within each model.

    Args:
        knob: its name.
        values: the two values as text, the first one's WER less the second one's being the difference.
        candidates: the configurations that have one of the two values.
        words: reference words by clip; candidates with errors of other clips are left out.

    Returns:
        The comparison, or None where there are fewer than FEWEST_PAIRS pairs whose other knobs are alike.
    """
    usable = [candidate for candidate in candidates if len(candidate.errors) == len(words)]
    couples: list[Couple] = []
    for model in sorted({candidate.model for candidate in usable}):
        couples += _match([candidate for candidate in usable if candidate.model == model], usable)
    if len(couples) < FEWEST_PAIRS or not sum(words):
        return None
    differences = np.array([np.subtract(first.errors, second.errors) for first, second in couples], float)
    clip_words = np.asarray(words, float)  # [clips]
    resampled, low, high = _bootstrap(differences, clip_words)
    pairs = []
    for (first, second), errors, rates in zip(couples, differences, resampled.T, strict=True):
        pair_low, pair_high = np.quantile(rates, [0.025, 0.975])  # one by one: of all at once it makes copies
        rate = float(errors.sum() / clip_words.sum())
        factor = _rate_factor(first, second)
        pairs.append(MatchedPair(first.number, second.number, rate, float(pair_low), float(pair_high), factor))
    return MatchedPairs(
        knob=knob,
        values=values,
        pairs=tuple(pairs),
        difference=float(differences.sum() / clip_words.sum() / len(couples)),
        low=low,
        high=high,
        clips=len(clip_words),
        unmatched=len(candidates) - 2 * len(couples),
        method=_method(knob, pairs, couples),
    )


def _bootstrap(differences: Floats, words: Floats) -> tuple[npt.NDArray[np.float32], float, float]:
    """Each pair's difference of WERs over resampled clips [resamples, pairs], and the interval of their mean.

    `differences` [pairs, clips] are of errors, `words` [clips] of the references.
    """
    pairs, clips = differences.shape
    rng = np.random.default_rng(pairs)
    resampled = np.empty((_RESAMPLES, pairs), np.float32)
    for start in range(0, _RESAMPLES, _RESAMPLES_AT_ONCE):
        rows = resampled[start : start + _RESAMPLES_AT_ONCE]
        clip_counts = rng.multinomial(clips, np.full(clips, 1 / clips), size=len(rows)).astype(float)  # [rows, clips]
        rows[:] = clip_counts @ differences.T / np.maximum(clip_counts @ words, 1.0)[:, None]
    shares = np.full(pairs, 1 / pairs)
    means = [float(row @ rng.multinomial(pairs, shares)) / pairs for row in resampled]
    low, high = np.quantile(means, [0.025, 0.975])
    return resampled, float(low), float(high)


def _match(candidates: Sequence[MatchCandidate], usable: Sequence[MatchCandidate]) -> list[Couple]:
    """The cheapest matching of one model's candidates; distances are relative to all usable ones' ranges."""
    firsts = [candidate for candidate in candidates if candidate.has_first]
    seconds = [candidate for candidate in candidates if not candidate.has_first]
    if not firsts or not seconds:
        return []
    ranges = _ranges(usable)
    blocks = []
    for start in range(0, len(firsts), _FIRSTS_AT_ONCE):
        blocks.append(_distances(firsts[start : start + _FIRSTS_AT_ONCE], seconds, ranges))
    costs = np.concatenate(blocks)  # [firsts, seconds]
    couples = []
    for row, column in zip(*linear_sum_assignment(costs), strict=True):
        if costs[row, column] < _NO_PAIR:
            couples.append((firsts[row], seconds[column]))
    return couples


def _ranges(candidates: Sequence[MatchCandidate]) -> dict[str, float]:
    """How far apart the values of each numeric knob lie."""
    ranges = {}
    for name in candidates[0].knobs:
        having = [candidate for candidate in candidates if _is_number(candidate.knobs.get(name))]
        numbers = [float(candidate.knobs[name]) for candidate in having]
        if len(numbers) == len(candidates):
            ranges[name] = (max(numbers) - min(numbers)) or 1.0
    return ranges


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _rate_factor(first: MatchCandidate, second: MatchCandidate) -> float | None:
    """By which factor the learning rates differ, 1 or more; None where they are not positive numbers."""
    factor = _factor(first.knobs.get("learning_rate"), second.knobs.get("learning_rate"))
    return factor if math.isfinite(factor) else None


def _factor(first: Any, second: Any) -> float:
    """By which factor two values differ, 1 or more; infinite for different choices and where only one number is 0."""
    if not _is_number(first) or not _is_number(second):
        return 1.0 if first == second and type(first) is type(second) else math.inf
    if first == second:
        return 1.0
    if first * second <= 0:
        return math.inf
    return math.exp(abs(math.log(first / second)))


def _distances(
    firsts: Sequence[MatchCandidate], seconds: Sequence[MatchCandidate], ranges: Mapping[str, float]
) -> Floats:
    """[firsts, seconds] In units of a knob's range; learning rates apart by MAX_FACTOR count 1.

    What must not be a pair costs more. A knob that the first of a pair lacks does not count.
    """
    total = np.zeros((len(firsts), len(seconds)))
    for name in dict.fromkeys(name for candidate in firsts for name in candidate.knobs):
        first_numbers, first_texts = _columns(firsts, name)
        second_numbers, second_texts = _columns(seconds, name)
        factors = _factors(first_numbers[:, None], second_numbers[None])
        is_same = (first_texts[:, None] == second_texts[None]) & (first_texts != "")[:, None]
        factors = np.where(is_same, 1.0, factors)
        apart = np.zeros_like(total)
        if name == "learning_rate":
            apart = np.log(factors) / math.log(MAX_FACTOR)
        elif name in ranges:
            apart = np.abs(first_numbers[:, None] - second_numbers[None]) / ranges[name]
        has_knob = np.array([name in candidate.knobs for candidate in firsts])  # [firsts]
        total += np.where(has_knob[:, None], np.where(factors >= MAX_FACTOR, _NO_PAIR, apart), 0.0)
    return total


def _columns(candidates: Sequence[MatchCandidate], name: str) -> tuple[Floats, npt.NDArray[np.object_]]:
    """A knob's values [candidates] as numbers, NaN for others, and as texts, empty for numbers."""
    values: list[Any] = [candidate.knobs.get(name) for candidate in candidates]
    numbers = [float(value) if _is_number(value) else math.nan for value in values]
    texts = ["" if _is_number(value) else f"{type(value).__name__} {value}" for value in values]
    return np.array(numbers), np.array(texts, object)


def _factors(first: Floats, second: Floats) -> Floats:
    """`_factor` of every pair of numbers; infinite where one is NaN."""
    with np.errstate(divide="ignore", invalid="ignore"):
        factors = np.where(first * second > 0, np.exp(np.abs(np.log(first / second))), np.inf)
    return np.where(first == second, 1.0, factors)


def _method(knob: str, pairs: Sequence[MatchedPair], couples: Sequence[Couple]) -> str:
    """How alike the partners are, in a phrase."""
    phrases = [] if knob == "model" else ["the same model"]
    factors = sorted(pair.rate_factor for pair in pairs if pair.rate_factor is not None)
    if factors:
        median = factors[len(factors) // 2]
        phrases.append(f"learning rates that differ by a factor of {median:.2g} in the median, below {MAX_FACTOR:g}")
    names = [name for name in couples[0][0].knobs if name != "learning_rate"]
    if names:
        equal = 0
        for first, second in couples:
            equal += all(first.knobs[name] == second.knobs.get(name) for name in names)
        phrases.append(
            f"{', '.join(names)} as similar as possible, never twice as large, equal in {equal} of {len(couples)} pairs"
        )
    return "; ".join(phrases)
