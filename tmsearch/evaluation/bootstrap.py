"""How sure an error rate is: bootstrap over utterances and seeds, of one recipe and of the difference between two.

Dimensions of arrays: resamples, trainings (of one recipe, each with its own seed), clips.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tmsearch.evaluation import student

RESAMPLES = 10_000
CONFIDENCE = 0.95
ALPHA = 1 - CONFIDENCE
# No error in n words: the exact upper limit is 1 - 0.025^(1/n), about 3.69 / n (Clopper and Pearson 1934). A bootstrap
# of nothing but zeros would be sure of zero.
_NO_ERRORS = 3.69
_ROWS_AT_ONCE = 500  # resamples of which there are floating-point copies
_DRAWS_AT_ONCE = 500_000  # of clips, 8 bytes each
_INTERVALS_AT_ONCE = 50  # 4 MB each array of them
_EXACT = 2.0**24  # whole numbers below it are exact in float32
Floats = NDArray[np.float64]
_Counts = NDArray[np.uint16] | NDArray[np.uint32]


@dataclass(frozen=True)
class Interval:
    """A 95 % confidence interval of an error rate, or of a difference between two."""

    low: float
    high: float


@dataclass(frozen=True)
class ErrorCounts:
    """One recipe's trainings: `errors` and reference `words`, each [trainings, clips].

    Both are 0 where a training was not scored on a clip. Recipes that are compared have the same clips in the same
    order.
    """

    errors: Floats
    words: Floats

    @property
    def rates(self) -> Floats:
        """Each training's error rate [trainings]."""
        rates: Floats = self.errors.sum(axis=1) / self.words.sum(axis=1)
        return rates

    @property
    def mean(self) -> float:
        """The mean of the trainings' error rates."""
        return float(self.rates.mean())


@dataclass(frozen=True)
class Difference:
    """The first recipe's mean rate minus the second's: below 0 the first is better."""

    mean: float
    interval: Interval
    standard_error: float
    p: float  # one-sided: that the first is not better
    freedom: int  # degrees of freedom of `seeds`
    seeds: float  # variance between trainings of one recipe
    utterances: float  # variance from the choice of clips, beyond what `seeds` contains already


@functools.lru_cache(maxsize=8)
def _weights(clips: int, resamples: int = RESAMPLES) -> _Counts:
    """How often each resample draws each clip [resamples, clips]; the same for every recipe, which pairs them."""
    rng = np.random.default_rng(clips)
    counts = np.empty((resamples, clips), np.uint16 if clips < 2**16 else np.uint32)
    at_once = max(1, _DRAWS_AT_ONCE // clips)
    for start in range(0, resamples, at_once):
        rows = counts[start : start + at_once]
        drawn = rng.integers(clips, size=rows.shape)  # [rows, draws], in a fourth of the time of rng.multinomial
        drawn += clips * np.arange(len(rows))[:, None]  # each row's clips have numbers of their own
        rows[:] = np.bincount(drawn.ravel(), minlength=rows.size).reshape(rows.shape)
    return counts


def _resampled(counts: Floats) -> Floats:
    """The sums over each resample's clips [rows, resamples] of `counts` [rows, clips], which are whole numbers."""
    clips = counts.shape[1]
    weights = _weights(clips)
    # Half the memory to go through; a sum of whole numbers below 2 ** 24 is exact in either.
    is_exact = clips * float(np.abs(counts).max(initial=0.0)) < _EXACT
    dtype = np.float32 if is_exact else np.float64
    factors: NDArray[Any] = counts.astype(dtype).T  # [clips, rows]
    sums = np.empty((len(counts), len(weights)))
    for start in range(0, len(weights), _ROWS_AT_ONCE):
        resamples = slice(start, start + _ROWS_AT_ONCE)
        drawn: NDArray[Any] = weights[resamples].astype(dtype)
        sums[:, resamples] = (drawn @ factors).T
    return sums


@functools.lru_cache(maxsize=8)
def _resampled_words(words: tuple[float, ...]) -> Floats:
    """The reference words of each resample [resamples], NaN for none; a study's results have the same."""
    resampled = _resampled(np.asarray(words, float)[None])[0]
    return np.where(resampled, resampled, np.nan)


def wer_interval(errors: Sequence[int], words: Sequence[int]) -> Interval | None:
    """The interval of one model's error rate; None for fewer than two clips.

    Percentiles of a bootstrap over utterances (Bisani and Ney 2004), widened for few clips as Student's t is
    (Hesterberg 2015, doi:10.1080/00031305.2015.1089789, "expanded percentile").

    Args:
        errors: word errors of each clip.
        words: reference words of each clip.
    """
    return wer_intervals([errors], words)[0]


def wer_intervals(rows: Sequence[Sequence[int]], words: Sequence[int]) -> list[Interval | None]:
    """`wer_interval` of each of `rows`, errors of the same clips: many at once take a fraction of the time."""
    total = float(sum(words))
    intervals: list[Interval | None] = [None] * len(rows)
    if len(words) < 2 or not total:
        return intervals
    resampled = []
    for index, errors in enumerate(rows):
        if len(errors) != len(words):
            continue
        if any(errors):
            resampled.append(index)
        else:
            intervals[index] = Interval(0.0, min(1.0, _NO_ERRORS / total))
    clip_words = np.asarray(words, float)  # [clips]
    for start in range(0, len(resampled), _INTERVALS_AT_ONCE):
        batch = resampled[start : start + _INTERVALS_AT_ONCE]
        errors_by_clip = np.array([rows[index] for index in batch], float)  # [batch, clips]
        for index, interval in zip(batch, _percentiles(errors_by_clip, clip_words), strict=True):
            intervals[index] = interval
    return intervals


def paired_interval(first: Sequence[int], second: Sequence[int], words: Sequence[int]) -> Interval | None:
    """The interval of the first model's error rate minus the second's, from their errors on the same clips.

    As `wer_interval`, with one choice of utterances for both. What other seeds would change comes on top. None for
    fewer than two clips.
    """
    if not len(first) == len(second) == len(words) or len(words) < 2 or not sum(words):
        return None
    differences = np.asarray(first, float) - np.asarray(second, float)  # [clips]
    return _percentiles(differences[None], np.asarray(words, float))[0]


def _percentiles(errors: Floats, words: Floats) -> list[Interval]:
    """The expanded percentile interval of each row of `errors` [rows, clips] over `words` [clips], over clips."""
    share = _tail(len(words))
    rates = _resampled(errors) / _resampled_words(tuple(words.tolist()))  # [rows, resamples]
    has_words = ~np.isnan(rates[0])
    lows, highs = np.quantile(rates[:, has_words], [share, 1 - share], axis=1)
    return [Interval(float(low), float(high)) for low, high in zip(lows, highs, strict=True)]


@functools.lru_cache(maxsize=8)
def _tail(clips: int) -> float:
    """The share of resamples below an interval's lower end, for so many clips."""
    low = student.quantile((1 - CONFIDENCE) / 2, clips - 1)
    return NormalDist().cdf(math.sqrt(clips / (clips - 1)) * low)


def mean_interval(counts: ErrorCounts, arms: Sequence[ErrorCounts]) -> Interval | None:
    """The interval of a recipe's mean rate over seeds and utterances; None where no recipe of `arms` was trained twice.

    `arms` are all recipes of the comparison, this one among them: they share one variance between seeds.
    """
    variance, freedom = _seed_noise(arms)
    if not freedom:
        return None
    means = _resampled_rates(counts).mean(axis=1)  # [resamples]
    # The variance between seeds contains the interaction of seeds and clips already (see `difference`).
    share = _utterance_share(float(means.var()), _interaction(counts))
    draws = counts.mean + share * (means - counts.mean) + _seed_draws(variance, freedom, len(counts.errors), 0)
    low, high = np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(max(0.0, float(low)), float(high))


def difference(first: ErrorCounts, second: ErrorCounts, arms: Sequence[ErrorCounts]) -> Difference | None:
    """Paired bootstrap over utterances and seeds of the difference between two recipes' mean rates.

    A resample draws utterances, the same for both recipes, and means over trainings: normal ones, as three values are
    too few to draw from, scaled by sqrt(n / chi2_n), n degrees of freedom, as a variance estimated from few trainings
    is uncertain itself (Student). A bootstrap over both counts the interaction of seeds and utterances twice (Owen
    2007, doi:10.1214/07-AOAS122): the utterances' part is shrunk by what the seeds' part contains already.

    Args:
        arms: all recipes of the comparison, these two among them: they share one variance between seeds, since three
            trainings of one recipe say little about it.

    Returns:
        None where no recipe was trained twice.
    """
    variance, freedom = _seed_noise(arms)
    if not freedom:
        return None
    observed = first.mean - second.mean
    # [resamples]
    deviations = _resampled_rates(first).mean(axis=1) - _resampled_rates(second).mean(axis=1) - observed
    spread = float(deviations.var())
    interaction = spread if _disjoint(first) else _interaction(first) + _interaction(second)
    share = _utterance_share(spread, interaction)
    first_seeds = _seed_draws(variance, freedom, len(first.errors), 0)
    second_seeds = _seed_draws(variance, freedom, len(second.errors), 1)
    draws = observed + share * deviations + first_seeds - second_seeds
    low, high = np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Difference(
        mean=observed,
        interval=Interval(float(low), float(high)),
        standard_error=float(draws.std()),
        p=(1 + int((draws >= 0).sum())) / (1 + len(draws)),
        freedom=freedom,
        seeds=variance,
        utterances=share**2 * spread,
    )


def wilcoxon(first: ErrorCounts, second: ErrorCounts) -> float:
    """One-sided p of Wilcoxon's signed ranks of the clips' mean differences: a cross-check that ignores seeds."""
    from scipy.stats import wilcoxon as signed_ranks

    first_trainings = (first.words > 0).sum(axis=0)  # [clips]
    second_trainings = (second.words > 0).sum(axis=0)
    both = (first_trainings > 0) & (second_trainings > 0)
    first_errors = first.errors.sum(axis=0)[both] / first_trainings[both]
    second_errors = second.errors.sum(axis=0)[both] / second_trainings[both]
    differences = first_errors - second_errors
    if not differences.any():
        return 1.0
    return float(signed_ranks(differences, alternative="less", zero_method="zsplit").pvalue)


def _resampled_rates(counts: ErrorCounts) -> Floats:
    """Each training's rate on each resample [resamples, trainings]."""
    words = _resampled(counts.words).T
    rates: Floats = _resampled(counts.errors).T / np.where(words, words, np.inf)
    return rates


def _utterance_share(spread: float, interaction: float) -> float:
    """The factor that takes the variance `interaction` out of deviations whose variance is `spread`."""
    return math.sqrt(max(0.0, 1 - interaction / spread)) if spread else 0.0


def _disjoint(counts: ErrorCounts) -> bool:
    """Whether every training was scored on clips of its own: then the variance between them contains that of clips."""
    return len(counts.words) > 1 and int((counts.words > 0).sum(axis=0).max()) == 1


def _folded(arms: Sequence[ErrorCounts]) -> bool:
    """Whether trainings of one recipe were scored on different clips."""
    return any(bool(((counts.words > 0) != (counts.words[0] > 0)).any()) for counts in arms)


def _seed_noise(arms: Sequence[ErrorCounts]) -> tuple[float, int]:
    """The variance between trainings of one recipe, pooled over all recipes, and its degrees of freedom.

    Where trainings were scored on different folds, what a fold does to every recipe is taken out as well.
    """
    repeated = [counts for counts in arms if len(counts.errors) > 1]
    if not repeated:
        return 0.0, 0
    if _folded(repeated):
        return _variance_beside_folds(repeated)
    freedom = sum(len(counts.rates) - 1 for counts in repeated)
    squares = sum(float(((counts.rates - counts.mean) ** 2).sum()) for counts in repeated)
    return squares / freedom, freedom


def _variance_beside_folds(arms: Sequence[ErrorCounts]) -> tuple[float, int]:
    """The variance of trainings' rates beside what each recipe and each fold adds, by least squares."""
    folds: dict[bytes, int] = {}  # by the clips that have words
    cells = []  # recipe and fold of each training
    for recipe, counts in enumerate(arms):
        for scored in counts.words > 0:
            cells.append((recipe, folds.setdefault(scored.tobytes(), len(folds))))
    rates = np.concatenate([counts.rates for counts in arms])  # [trainings]
    design = np.zeros((len(rates), len(arms) + len(folds)))
    for row, (recipe, fold) in enumerate(cells):
        design[row, recipe] = 1.0
        design[row, len(arms) + fold] = 1.0
    coefficients, _, rank, _ = np.linalg.lstsq(design, rates, rcond=None)
    freedom = len(rates) - int(rank)
    if freedom <= 0:
        return 0.0, 0
    residuals = rates - design @ coefficients
    return float((residuals**2).sum()) / freedom, freedom


def _seed_draws(variance: float, freedom: int, trainings: int, stream: int) -> Floats:
    """Deviations of a mean over `trainings` [resamples]; all random streams of one comparison share their scale."""
    scale = np.sqrt(freedom / np.random.default_rng(freedom).chisquare(freedom, RESAMPLES))
    rng = np.random.default_rng((stream, trainings))
    draws: Floats = rng.standard_normal(RESAMPLES) * math.sqrt(variance / trainings) * scale
    return draws


def _interaction(counts: ErrorCounts) -> float:
    """The variance of the mean rate that comes from the interaction of seeds and utterances."""
    trainings = len(counts.errors)
    if trainings < 2 or _disjoint(counts):
        return 0.0
    rates = _resampled_rates(counts)
    contrasts = rates - rates.mean(axis=1, keepdims=True)  # [resamples, trainings]
    return float(contrasts.var(axis=0).mean()) / (trainings - 1)
