"""How sure an error rate is: bootstrap over utterances and seeds, of one recipe and of the difference between two."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
CONFIDENCE = 0.95
ALPHA = 1 - CONFIDENCE
# No error in n words: the exact upper limit is 1 - 0.025^(1/n), about 3.69 / n (Clopper and Pearson 1934). A bootstrap
# of nothing but zeros would say that it is sure of zero.
_NO_ERRORS = 3.69
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """Where the rate of utterances like these lies, in 95 of 100 samples of them."""

    low: float
    high: float


@dataclass(frozen=True)
class ErrorCounts:
    """One recipe's trainings: errors and reference words [trainings, clips]; 0 of both where one has not heard a clip.

    The clips of all recipes that are compared are the same, in the same order.
    """

    errors: Floats
    words: Floats

    @property
    def rates(self) -> Floats:
        """Each training's own error rate [trainings]."""
        found: Floats = self.errors.sum(axis=1) / self.words.sum(axis=1)
        return found

    @property
    def mean(self) -> float:
        return float(self.rates.mean())


@dataclass(frozen=True)
class Difference:
    """`mean` is the first recipe's rate less the second's: below 0 the first is better; `p` is one-sided."""

    mean: float
    interval: Interval
    standard_error: float
    p: float
    freedom: int  # of the seeds' spread
    seeds: float  # variance between trainings of one recipe
    utterances: float  # variance of the difference that comes from the choice of clips, beyond what seeds hold


@functools.lru_cache(maxsize=8)
def _weights(clips: int, resamples: int = RESAMPLES) -> Floats:
    """How often each resample draws each clip [resamples, clips]; the same for every recipe, which pairs them."""
    rng = np.random.default_rng(clips)
    return rng.multinomial(clips, np.full(clips, 1 / clips), size=resamples).astype(np.float64)


def wer_interval(errors: Sequence[int], words: Sequence[int]) -> Interval | None:
    """Of one model's rate, by its errors and reference words for each clip; None for fewer than two clips.

    Percentiles of a bootstrap over utterances (Bisani and Ney 2004), widened for few clips as Student's t is
    (Hesterberg 2015, doi:10.1080/00031305.2015.1089789, "expanded percentile").
    """
    total = float(sum(words))
    if len(errors) != len(words) or len(words) < 2 or not total:
        return None
    if not any(errors):
        return Interval(0.0, min(1.0, _NO_ERRORS / total))
    weights = _weights(len(words))
    heard = weights @ np.asarray(words, float)
    rates = weights @ np.asarray(errors, float) / np.where(heard, heard, np.nan)
    return _percentiles(rates, len(words))


def paired_interval(one: Sequence[int], other: Sequence[int], words: Sequence[int]) -> Interval | None:
    """Of the first model's rate less the second's, by their errors on the same clips; None for fewer than two clips.

    As `wer_interval`, with one choice of utterances for both. What other seeds would give comes on top.
    """
    if not len(one) == len(other) == len(words) or len(words) < 2 or not sum(words):
        return None
    weights = _weights(len(words))
    heard = weights @ np.asarray(words, float)
    more = np.asarray(one, float) - np.asarray(other, float)
    return _percentiles(weights @ more / np.where(heard, heard, np.nan), len(words))


def _percentiles(draws: Floats, clips: int) -> Interval:
    from scipy.special import ndtr, stdtrit

    share = float(ndtr(math.sqrt(clips / (clips - 1)) * stdtrit(clips - 1, (1 - CONFIDENCE) / 2)))
    low, high = np.nanquantile(draws, [share, 1 - share])
    return Interval(float(low), float(high))


def mean_interval(runs: ErrorCounts, arms: Sequence[ErrorCounts]) -> Interval | None:
    """Of a recipe's mean rate over seeds and utterances; None where no recipe of `arms` was trained twice."""
    variance, freedom = _seed_noise(arms)
    if not freedom:
        return None
    centres = _rates(runs).mean(axis=1)
    # What seeds and clips do together is in the seeds' spread already (see `difference`).
    spread, together = float(centres.var()), _together(runs)
    share = math.sqrt(max(0.0, 1 - together / spread)) if spread else 0.0
    draws = runs.mean + share * (centres - runs.mean) + _seed_draws(variance, freedom, len(runs.errors), 0)
    low, high = np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(max(0.0, float(low)), float(high))


def difference(one: ErrorCounts, other: ErrorCounts, arms: Sequence[ErrorCounts]) -> Difference | None:
    """Paired bootstrap over utterances and seeds of the difference between two recipes' mean rates.

    `arms` are all recipes of the comparison, these two among them: they share one spread between seeds, since three
    trainings of one recipe tell little of it. A resample draws utterances, the same for both recipes, and means over
    trainings: normal ones, as three values are too few to draw from, scaled by sqrt(n / chi2_n), n degrees of freedom,
    as a spread that is known from few trainings is uncertain itself (Student). A bootstrap over both counts twice what
    seeds and utterances do together (Owen 2007, doi:10.1214/07-AOAS122): the utterances' part is shrunk by what the
    seeds' part holds already.
    None where no recipe was trained twice.
    """
    variance, freedom = _seed_noise(arms)
    if not freedom:
        return None
    observed = one.mean - other.mean
    deviations = _rates(one).mean(axis=1) - _rates(other).mean(axis=1) - observed
    spread = float(deviations.var())
    together = spread if _disjoint(one) else _together(one) + _together(other)
    share = math.sqrt(max(0.0, 1 - together / spread)) if spread else 0.0
    seeds = [_seed_draws(variance, freedom, len(each.errors), place) for place, each in enumerate((one, other))]
    draws = observed + share * deviations + seeds[0] - seeds[1]
    low, high = np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    p = (1 + int((draws >= 0).sum())) / (1 + len(draws))
    interval, error = Interval(float(low), float(high)), float(draws.std())
    return Difference(observed, interval, error, p, freedom, variance, share**2 * spread)


def wilcoxon(one: ErrorCounts, other: ErrorCounts) -> float:
    """One-sided p of the signed ranks of the clips' mean differences: a cross-check that knows nothing of seeds."""
    from scipy.stats import wilcoxon as signed_ranks

    heard = (one.words > 0).sum(axis=0), (other.words > 0).sum(axis=0)
    both = (heard[0] > 0) & (heard[1] > 0)
    per_clip = one.errors.sum(axis=0)[both] / heard[0][both] - other.errors.sum(axis=0)[both] / heard[1][both]
    if not per_clip.any():
        return 1.0
    found: Any = signed_ranks(per_clip, alternative="less", zero_method="zsplit")
    return float(found.pvalue)


def _rates(runs: ErrorCounts) -> Floats:
    """Each training's rate on each resample [resamples, trainings]."""
    weights = _weights(runs.errors.shape[1])
    words = weights @ runs.words.T
    found: Floats = weights @ runs.errors.T / np.where(words, words, np.inf)
    return found


def _disjoint(runs: ErrorCounts) -> bool:
    """Whether every training was scored on clips of its own: then their spread holds all that clips do, too."""
    return len(runs.words) > 1 and int((runs.words > 0).sum(axis=0).max()) == 1


def _folded(arms: Sequence[ErrorCounts]) -> bool:
    return any(bool(((runs.words > 0) != (runs.words[0] > 0)).any()) for runs in arms)


def _seed_noise(arms: Sequence[ErrorCounts]) -> tuple[float, int]:
    """The variance between trainings of one recipe, all recipes together, and its degrees of freedom.

    Where trainings were scored on different folds, what a fold does to every recipe is taken out as well.
    """
    several = [runs for runs in arms if len(runs.errors) > 1]
    if not several:
        return 0.0, 0
    if _folded(several):
        least = min(len(runs.errors) for runs in several)
        table = np.array([runs.rates[:least] for runs in several])
        freedom = (len(several) - 1) * (least - 1)
        if not freedom:
            return 0.0, 0
        residuals = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0) + table.mean()
        return float((residuals**2).sum()) / freedom, freedom
    freedom = sum(len(runs.rates) - 1 for runs in several)
    return sum(float(((runs.rates - runs.mean) ** 2).sum()) for runs in several) / freedom, freedom


def _seed_draws(variance: float, freedom: int, trainings: int, place: int) -> Floats:
    """Deviations of a mean over `trainings` [resamples]; all places of one comparison share their scale."""
    scale = np.sqrt(freedom / np.random.default_rng(freedom).chisquare(freedom, RESAMPLES))
    rng = np.random.default_rng((place, trainings))
    found: Floats = rng.standard_normal(RESAMPLES) * math.sqrt(variance / trainings) * scale
    return found


def _together(runs: ErrorCounts) -> float:
    """The variance of the mean rate that comes from what seeds and utterances do together."""
    trainings = len(runs.errors)
    if trainings < 2 or _disjoint(runs):
        return 0.0
    rates = _rates(runs)
    contrasts = rates - rates.mean(axis=1, keepdims=True)
    return float(contrasts.var(axis=0).mean()) / (trainings - 1)
