"""Intervals and differences, against what is known of them without a bootstrap."""

import dataclasses
import math

import numpy as np
import pytest

from tmsearch.evaluation import bootstrap, student
from tmsearch.evaluation.bootstrap import ErrorCounts, difference, mean_interval, wer_interval


def runs(rng, trainings, clips=100, rate=0.2, seed_spread=0.0, words=10):
    """Trainings of one recipe on equal clips; each has its own rate."""
    rates = rate + seed_spread * rng.standard_normal(trainings)
    errors = rng.binomial(words, np.clip(rates, 0, 1)[:, None], (trainings, clips)).astype(float)
    return ErrorCounts(errors, np.full((trainings, clips), float(words)))


def test_an_interval_is_as_wide_as_the_ratio_estimators_standard_error_says():
    rng = np.random.default_rng(1)
    words = rng.integers(3, 20, 200)
    errors = rng.binomial(words, 0.25)
    interval = wer_interval(errors.tolist(), words.tolist())
    rate = errors.sum() / words.sum()
    linear = (errors - rate * words) / words.mean()  # delta method, Cochran 1977, section 6.4
    error = linear.std(ddof=1) / math.sqrt(200)
    assert interval.low < rate < interval.high
    assert (interval.high - interval.low) / 2 == pytest.approx(1.972 * error, rel=0.05)


def test_intervals_at_the_edges():
    assert wer_interval([1], [3]) is None, "one clip tells no spread"
    assert wer_interval([0, 0], [0, 0]) is None
    none = wer_interval([0] * 50, [10] * 50)
    assert (none.low, none.high) == (0.0, pytest.approx(1 - 0.025 ** (1 / 500), rel=0.01))
    insertions = wer_interval([0, 30, 4], [0, 10, 10])
    assert insertions.high > 1, "a WER may be above 1, and a clip without words counts by its errors"


def test_equal_inputs_give_equal_intervals():
    assert wer_interval([1, 0, 2], [4, 5, 6]) == wer_interval([1, 0, 2], [4, 5, 6])


def test_a_difference_of_seeds_alone_is_students():
    """On very many clips only seeds vary: then the standard error and p are those of Student's pooled t-test."""
    from scipy import stats

    rng = np.random.default_rng(5)
    first, second = (runs(rng, 4, clips=4000, rate=rate, seed_spread=0.02) for rate in (0.20, 0.23))
    result = difference(first, second, [first, second])
    textbook = stats.ttest_ind(first.rates, second.rates, alternative="less")
    assert result.freedom == 6
    assert result.mean == pytest.approx(first.mean - second.mean)
    assert result.p == pytest.approx(textbook.pvalue, abs=0.02)


def test_one_training_each_tells_no_difference():
    rng = np.random.default_rng(0)
    first, second = runs(rng, 1), runs(rng, 1)
    assert difference(first, second, [first, second]) is None
    assert mean_interval(first, [first, second]) is None


def test_what_seeds_and_clips_do_together_is_not_counted_twice():
    """Equal recipes without any spread but each word's own: the standard error is the binomial's."""
    rng = np.random.default_rng(2)
    errors = []
    for _ in range(60):
        first, second = runs(rng, 3), runs(rng, 3)
        errors.append(difference(first, second, [first, second, runs(rng, 3), runs(rng, 3)]).standard_error)
    binomial = math.sqrt(2 * 0.2 * 0.8 / (3 * 100 * 10))
    # Student's scale at 8 degrees of freedom is wider than the normal by sqrt(8 / 6).
    assert np.mean(errors) == pytest.approx(binomial * math.sqrt(8 / 6), rel=0.2)


def test_folds_are_compared_within_folds():
    """Half of the clips are hard: each fold has its own, and what a fold does to both recipes is no noise."""
    rng = np.random.default_rng(3)
    sets = np.repeat(np.eye(4), 30, axis=1)  # [4 trainings, 120 clips], each on 30 of them
    hard = np.repeat([0.1, 0.3, 0.5, 0.2], 30)
    arms = []
    for gain in (0.7, 1.0, 1.0):
        arms.append(ErrorCounts(sets * rng.binomial(10, np.tile(hard * gain, (4, 1))), sets * 10))
    result = difference(arms[0], arms[1], arms)
    assert result.freedom == 2 * 3
    assert result.p < 0.05
    assert result.standard_error < 0.5 * arms[1].rates.std(ddof=1)
    assert bootstrap.wilcoxon(arms[0], arms[1]) < 0.05


def test_signed_ranks_of_no_difference():
    rng = np.random.default_rng(0)
    first = runs(rng, 2)
    assert bootstrap.wilcoxon(first, first) == 1.0


def test_many_intervals_at_once_are_those_of_each():
    rng = np.random.default_rng(4)
    words = rng.integers(1, 20, 30).tolist()
    rows = [rng.binomial(5, 0.3, 30).tolist() for _ in range(60)]
    rows[3] = [0] * 30
    rows[4] = [1] * 29
    assert bootstrap.wer_intervals(rows, words) == [wer_interval(row, words) for row in rows]
    assert bootstrap.wer_intervals(rows, words)[4] is None
    assert bootstrap.wer_intervals([], words) == []
    large = [errors * 1_000_000 for errors in rows[0]]  # whole numbers that float32 does not hold
    scaled = wer_interval(large, [count * 1_000_000 for count in words])
    assert (scaled.low, scaled.high) == pytest.approx(dataclasses.astuple(wer_interval(rows[0], words)), rel=1e-12)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 17, 123, 499, 2000])
def test_students_quantiles_are_scipys(freedom):
    from scipy.special import stdtrit

    for share in (0.005, 0.025, 0.3, 0.5, 0.8, 0.975):
        assert student.quantile(share, freedom) == pytest.approx(float(stdtrit(freedom, share)), rel=1e-10, abs=1e-12)
