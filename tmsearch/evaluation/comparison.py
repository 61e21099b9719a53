"""Is the winner real: recipes trained several times, compared, and what is known of them in a sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tmsearch.evaluation import bootstrap
from tmsearch.evaluation.bootstrap import Difference, ErrorCounts, Interval

POWER = 0.80  # a gain counts as findable when four of five confirmations would find it
GAIN = 0.10  # relative; what the advice at the end is about


@dataclass(frozen=True)
class Training:
    """One training's errors and reference words by clip, on the clips of its fold in the split's order."""

    seed: int
    fold: int
    errors: tuple[int, ...]
    words: tuple[int, ...]

    @property
    def wer(self) -> float:
        return sum(self.errors) / max(1, sum(self.words))


@dataclass(frozen=True)
class Contender:
    """A recipe of the comparison: the default one or a leader of the search. `fate` says why it was left early."""

    name: str
    trainings: tuple[Training, ...]
    fate: str = ""


@dataclass(frozen=True)
class Verdict:
    """The best contender by its mean against the default recipe. `level` is what its p, times contenders, must pass."""

    default: Contender
    winner: Contender
    contenders: int
    clips: int
    level: float
    difference: Difference | None
    wilcoxon: float
    means: tuple[float, float]  # winner's, default's
    split: str = "validation"

    @property
    def p(self) -> float:
        """Bonferroni's: the best of several is taken."""
        return min(1.0, self.contenders * self.difference.p) if self.difference else 1.0

    @property
    def is_significant(self) -> bool:
        return self.difference is not None and self.p <= self.level

    def sentence(self) -> str:
        """What a person can quote."""
        winner, default = self.means
        seen = (
            f"WER {winner:.3f} against {default:.3f} on {self.clips} {self.split} clips, "
            f"{_trainings(self.winner)} against {_trainings(self.default)}"
        )
        if self.difference is None:
            untold = f"{self.winner.name} can't be told apart from the default recipe"
            return f"{untold}: {seen}, and no recipe trained twice."
        sure = (
            f"difference {self.difference.mean:+.3f}, 95 % {self.difference.interval.low:+.3f} to "
            f"{self.difference.interval.high:+.3f}, {_p(self.p)} as the best of {self.contenders}"
        )
        if not self.is_significant:
            return f"{self.winner.name} can't be told apart from the default recipe: {seen} ({sure})."
        gain = 1 - winner / default
        return f"{self.winner.name} makes {gain:.0%} fewer word errors than the default recipe: {seen} ({sure})."

    def cross_check(self) -> str:
        """What the signed ranks say, and whether they say the same."""
        agrees = (self.wilcoxon * self.contenders <= self.level) == self.is_significant
        return f"Wilcoxon over clips, seeds aside: {_p(min(1.0, self.wilcoxon * self.contenders))}" + (
            "" if agrees else "; it says otherwise, since it knows nothing of seeds or of how far clips differ"
        )


def compare(
    default: Contender, contenders: Sequence[Contender], level: float, *, split: str = "validation"
) -> Verdict | None:
    """The contender with the lowest mean against the default; None where either side has no training.

    Who left the race early does not win, unless all did; what its trainings tell of seeds' spread counts all the same.
    """
    usable = [one for one in contenders if one.trainings]
    if not default.trainings or not usable:
        return None
    arms = dict(zip([default.name, *(one.name for one in usable)], aligned([default, *usable]), strict=True))
    left = [one for one in usable if not one.fate] or usable
    winner = min(left, key=lambda one: arms[one.name].mean)
    mine, theirs = arms[winner.name], arms[default.name]
    return Verdict(
        default=default,
        winner=winner,
        contenders=len(contenders),
        clips=int(((mine.words > 0).any(axis=0) | (theirs.words > 0).any(axis=0)).sum()),
        level=level,
        difference=bootstrap.difference(mine, theirs, list(arms.values())),
        wilcoxon=bootstrap.wilcoxon(mine, theirs),
        means=(mine.mean, theirs.mean),
        split=split,
    )


def aligned(recipes: Sequence[Contender]) -> list[ErrorCounts]:
    """All trainings on one axis of clips: fold after fold, with no words where a training did not hear them."""
    words = {one.fold: one.words for recipe in recipes for one in recipe.trainings}
    starts, total = {}, 0
    for fold in sorted(words):
        starts[fold], total = total, total + len(words[fold])
    found = []
    for recipe in recipes:
        errors, heard = np.zeros((len(recipe.trainings), total)), np.zeros((len(recipe.trainings), total))
        for row, one in enumerate(recipe.trainings):
            here = slice(starts[one.fold], starts[one.fold] + len(one.words))
            errors[row, here], heard[row, here] = one.errors, one.words
        found.append(ErrorCounts(errors, heard))
    return found


def interval(recipe: Contender, recipes: Sequence[Contender]) -> Interval | None:
    """Of the recipe's mean WER over seeds and utterances."""
    usable = [one for one in recipes if one.trainings]
    if recipe not in usable:
        return None
    arms = aligned(usable)
    return bootstrap.mean_interval(arms[usable.index(recipe)], arms)


def spread(recipe: Contender) -> float | None:
    """The standard deviation of its trainings' WERs; None for fewer than two."""
    rates = [one.wer for one in recipe.trainings]
    return float(np.std(rates, ddof=1)) if len(rates) > 1 else None


def required_sample_size(verdict: Verdict) -> str:
    """How many trainings, or clips, would show a gain of GAIN of the default's WER in POWER of tries."""
    found, seeds = verdict.difference, len(verdict.default.trainings)
    if found is None:
        return "train each recipe twice at the least: --seeds 2"
    per_clip = found.utterances * verdict.clips
    gain = GAIN * verdict.means[1]
    most = 64
    enough = next((n for n in range(2, most + 1) if _seen(verdict, gain, n, found.utterances)), None)
    clips = next(
        (
            n
            for n in range(verdict.clips, 100 * verdict.clips, max(1, verdict.clips // 20))
            if _seen(verdict, gain, seeds, per_clip / n)
        ),
        None,
    )
    with_seeds = f"{enough} trainings of each" if enough else f"no number of trainings up to {most}"
    with_seeds += f" on these {verdict.clips} clips"
    with_clips = f"{clips} clips at {seeds} trainings" if clips else f"no number of clips at {seeds} trainings"
    return f"a gain of {GAIN:.0%} would be seen in four of five tries with {with_seeds}, or {with_clips}"


def _seen(verdict: Verdict, gain: float, seeds: int, utterances: float) -> bool:
    from scipy.special import stdtrit

    assert verdict.difference is not None
    freedom = (verdict.contenders + 1) * (seeds - 1)
    error = math.sqrt(utterances + 2 * verdict.difference.seeds / seeds)
    bar = stdtrit(freedom, 1 - bootstrap.ALPHA / verdict.contenders) + stdtrit(freedom, POWER)
    return bool(gain >= bar * error)


def _trainings(recipe: Contender) -> str:
    return f"{len(recipe.trainings)} training{'s' if len(recipe.trainings) > 1 else ''}"


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"
