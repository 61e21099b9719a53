"""Is the winner real: recipes trained several times, compared, and the verdict in a sentence."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tmsearch.evaluation import bootstrap
from tmsearch.evaluation.bootstrap import Difference, ErrorCounts, Interval
from tmsearch.evaluation.scores import measure_name

POWER = 0.80  # a gain counts as detectable when four of five confirmations would find it
GAIN = 0.10  # relative to the default's WER; what `required_sample_size` is about
MOST_TRAININGS = 20  # of each recipe; more is no advice
MOST_CLIPS = 30  # times the clips that there are; likewise


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
    """A recipe of the comparison: the default or a leader of the search. `fate` says why it was dropped early."""

    name: str
    trainings: tuple[Training, ...]
    fate: str = ""


@dataclass(frozen=True)
class Verdict:
    """The best contender by its mean against the default recipe."""

    default: Contender
    winner: Contender
    contenders: int  # how many there were
    clips: int
    level: float  # that `p` must not exceed
    difference: Difference | None
    wilcoxon: float  # p, of one comparison
    means: tuple[float, float]  # WER of the winner, of the default
    split: str = "validation"
    objective: str = "wer"  # what `errors` and `words` count: characters for cer, else words
    adjusted_p: float | None = None  # one-sided, as the best of several; None: Bonferroni's

    @property
    def p(self) -> float:
        """The one-sided p, corrected for the best of several being taken."""
        if self.difference is None:
            return 1.0
        if self.adjusted_p is not None:
            return self.adjusted_p
        return min(1.0, self.contenders * self.difference.p)

    @property
    def is_significant(self) -> bool:
        return self.difference is not None and self.p <= self.level

    def sentence(self) -> str:
        """The verdict in a sentence that a person can quote."""
        winner, default = self.means
        evidence = (
            f"{measure_name(self.objective)} {winner:.3f} against {default:.3f} on {self.clips} {self.split} clips, "
            f"{_trainings(self.winner)} against {_trainings(self.default)}"
        )
        if self.difference is None:
            return f"{self.short_sentence()}: {evidence}, and no recipe trained twice."
        sure = (
            f"difference {self.difference.mean:+.3f}, 95 % {self.difference.interval.low:+.3f} to "
            f"{self.difference.interval.high:+.3f}, {_p(self.p)} as the best of {self.contenders}"
        )
        return f"{self.short_sentence()}: {evidence} ({sure})."

    def short_sentence(self) -> str:
        """The verdict without its figures, for a line that says why something follows from it."""
        winner, default = self.means
        if self.is_significant:
            errors = f"{_unit(self.objective)} errors"
            return f"{self.winner.name} makes {1 - winner / default:.0%} fewer {errors} than the default recipe"
        if winner >= default:
            return (
                f"No better: the best of the others, {self.winner.name}, was {_rate(winner - default)} worse on average"
            )
        return (
            f"Not proven: {self.winner.name} was {_rate(default - winner)} better on average, {self.clips} clips can't "
            "rule out luck"
        )

    def cross_check(self) -> str:
        """What Wilcoxon's test says, and whether it agrees."""
        p = self.wilcoxon * self.contenders
        text = f"Wilcoxon over clips, seeds aside: {_p(min(1.0, p))}"
        if (p <= self.level) == self.is_significant:
            return text
        return f"{text}; it says otherwise, since it knows nothing of seeds or of how far clips differ"


def _unit(objective: str) -> str:
    return "character" if objective == "cer" else "word"


def compare(
    default: Contender,
    contenders: Sequence[Contender],
    level: float,
    adjusted: Callable[[float], float] | None = None,
    *,
    split: str = "validation",
    objective: str = "wer",
) -> Verdict | None:
    """The contender with the lowest mean WER against the default; None where either side has no training.

    A contender that was dropped early does not win, unless all were: then one of those that were trained most does. All
    trainings count for the variance between seeds.

    Args:
        default: What people use already.
        contenders: The leaders of a search.
        level: What the p may be at most.
        adjusted: From the p of the winner as if it were the only contender to what it is as the best of several;
            None: Bonferroni's correction.
        split: What the trainings were scored on, in words.
        objective: What their errors count.
    """
    trained = [contender for contender in contenders if contender.trainings]
    if not default.trainings or not trained:
        return None
    compared = [default, *trained]
    counts = dict(zip([contender.name for contender in compared], aligned(compared), strict=True))
    most = max(len(contender.trainings) for contender in trained)
    finishers = [contender for contender in trained if not contender.fate]
    finishers = finishers or [contender for contender in trained if len(contender.trainings) == most]
    winner = min(finishers, key=lambda contender: counts[contender.name].mean)
    winner_counts = counts[winner.name]
    default_counts = counts[default.name]
    difference = bootstrap.difference(winner_counts, default_counts, list(counts.values()))
    scored = (winner_counts.words > 0).any(axis=0) | (default_counts.words > 0).any(axis=0)  # [clips]
    return Verdict(
        default=default,
        winner=winner,
        contenders=len(contenders),
        clips=int(scored.sum()),
        level=level,
        difference=difference,
        wilcoxon=bootstrap.wilcoxon(winner_counts, default_counts),
        means=(winner_counts.mean, default_counts.mean),
        split=split,
        objective=objective,
        adjusted_p=adjusted(difference.p) if adjusted is not None and difference is not None else None,
    )


def aligned(contenders: Sequence[Contender]) -> list[ErrorCounts]:
    """All trainings on one axis of clips, fold after fold, with no words where a training was not scored."""
    fold_clips = {}
    for contender in contenders:
        for training in contender.trainings:
            fold_clips[training.fold] = len(training.words)
    fold_slices = {}
    clips = 0
    for fold in sorted(fold_clips):
        fold_slices[fold] = slice(clips, clips + fold_clips[fold])
        clips += fold_clips[fold]
    arms = []
    for contender in contenders:
        errors = np.zeros((len(contender.trainings), clips))  # [trainings, clips]
        words = np.zeros_like(errors)
        for row, training in enumerate(contender.trainings):
            columns = fold_slices[training.fold]
            errors[row, columns] = training.errors
            words[row, columns] = training.words
        arms.append(ErrorCounts(errors, words))
    return arms


def interval(contender: Contender, contenders: Sequence[Contender]) -> Interval | None:
    """The interval of the contender's mean WER over seeds and utterances; None where no contender was trained twice."""
    trained = [other for other in contenders if other.trainings]
    if contender not in trained:
        return None
    arms = aligned(trained)
    return bootstrap.mean_interval(arms[trained.index(contender)], arms)


def spread(contender: Contender) -> float | None:
    """The standard deviation of its trainings' WERs; None for fewer than two."""
    rates = [training.wer for training in contender.trainings]
    return float(np.std(rates, ddof=1)) if len(rates) > 1 else None


def as_many(seeds: int) -> int:
    """Trainings of the default recipe in a confirmation with so many `--seeds` that trains all recipes as often."""
    return seeds


def required_sample_size(verdict: Verdict, trainings_with: Callable[[int], int] = as_many) -> str:
    """How many trainings, or clips, would detect a gain of GAIN of the default's WER in POWER of tries, in a sentence.

    Only numbers that a person can act on are given: up to MOST_TRAININGS of a recipe, or MOST_CLIPS times the clips.

    Args:
        verdict: The confirmation's.
        trainings_with: How often `--seeds` trains the default recipe and the contender that stays to the end.
    """
    difference = verdict.difference
    if difference is None:
        return "What it takes: at least two trainings of each recipe, `--seeds 2`."
    gain = GAIN * verdict.means[1]
    trained = len(verdict.default.trainings)
    per_clip = difference.utterances * verdict.clips

    def enough_seeds(seeds: int) -> bool:
        trainings = trainings_with(seeds)
        return trainings <= MOST_TRAININGS and _detects(verdict, gain, trainings, difference.utterances)

    def enough_clips(clips: int) -> bool:
        return _detects(verdict, gain, max(2, trained), per_clip / clips)

    ways = []
    seeds = _first(range(2, MOST_TRAININGS + 1), enough_seeds)
    if seeds and trainings_with(seeds) > trained:
        trainings = trainings_with(seeds)
        ways.append(f"{trainings} trainings of each recipe on these {verdict.clips} clips (`--seeds {seeds}`)")
    step = max(1, verdict.clips // 20)
    clips = _first(range(verdict.clips, MOST_CLIPS * verdict.clips, step), enough_clips)
    if clips and clips > verdict.clips:
        ways.append(f"about {clips} {verdict.split} clips with {max(2, trained)} trainings of each")
    aim = f"to see a gain of {GAIN:.0%} in four of five confirmations"
    if ways:
        return f"What it takes {aim}: {', or '.join(ways)}."
    if seeds or clips:
        return f"This confirmation was large enough {aim}: if there is a gain, it is probably smaller."
    return (
        f"Neither {MOST_TRAININGS} trainings of each recipe nor {MOST_CLIPS} times the clips would be enough {aim}: "
        "the clips differ too much for so small a gain; add validation clips, and look for a larger one."
    )


def _first(numbers: Iterable[int], suffices: Callable[[int], bool]) -> int | None:
    return next((number for number in numbers if suffices(number)), None)


def _detects(verdict: Verdict, gain: float, trainings: int, utterances: float) -> bool:
    """Whether a comparison of `trainings` of each of two recipes detects `gain` with probability POWER.

    `utterances` is the variance of the difference that comes from the choice of clips.
    """
    from scipy.special import stdtrit

    assert verdict.difference is not None
    trained = max(2, len(verdict.default.trainings))
    freedom = verdict.difference.freedom * (trainings - 1) / (trained - 1)
    error = math.sqrt(utterances + 2 * verdict.difference.seeds / trainings)
    bar = stdtrit(freedom, 1 - bootstrap.ALPHA / verdict.contenders) + stdtrit(freedom, POWER)
    return bool(gain >= bar * error)


def _trainings(contender: Contender) -> str:
    return f"{len(contender.trainings)} training{'s' if len(contender.trainings) > 1 else ''}"


def _rate(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"
