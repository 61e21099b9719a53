"""The race among equals: what it gives the looks to spend, and that its p is one."""

import numpy as np
import pytest
from scipy.special import stdtr

from search.schedulers import race_reference
from search.schedulers.race_reference import ALPHA, contenders_by_round, planned_rounds, planned_trainings, reference


@pytest.mark.parametrize(("contenders", "replicates"), [(1, 3), (2, 2), (3, 3), (5, 3), (8, 2)])
def test_it_takes_no_more_trainings_than_all_of_them_in_full_would(contenders, replicates):
    rounds = planned_rounds(contenders, replicates)
    assert rounds >= replicates
    assert planned_trainings(contenders, rounds) <= (contenders + 1) * replicates
    assert planned_trainings(contenders, rounds + 1) > (contenders + 1) * replicates


def test_three_leaders_and_three_seeds_are_four_rounds_and_eleven_trainings():
    assert contenders_by_round(3, planned_rounds(3, 3)) == [3, 2, 1, 1]
    assert planned_trainings(3, 4) == 11
    assert planned_rounds(1, 3) == 3, "where there is nobody to drop"


def test_all_looks_together_spend_no_more_than_one_test_may():
    for contenders, planned in ((1, 3), (3, 4)):
        races = reference(contenders, planned)
        levels = [races.adjusted(races.bounds[rounds], rounds) for rounds in range(2, planned + 1)]
        assert levels == sorted(levels)
        assert levels[-1] == pytest.approx(ALPHA, abs=1e-4)
        for rounds, level in enumerate(levels, start=2):
            assert level <= race_reference.spent(rounds, planned)
            assert races.adjusted(races.bounds[rounds] + 1e-3, rounds) > race_reference.spent(rounds, planned)


def test_one_contender_and_one_look_is_the_t_test_itself():
    races = reference(1, 2)
    assert races.freedom == (0, 0, 2)
    for p in (0.01, 0.05, 0.2):
        assert races.adjusted(p, 2) == pytest.approx(p, rel=0.05)


def test_the_best_of_several_is_corrected_by_less_than_their_number_and_by_more_than_nothing():
    races = reference(3, 4)
    assert ALPHA / 3 < races.bounds[4] < ALPHA / 2
    assert races.freedom == (0, 0, 3, 5, 7)
    assert races.adjusted(1.0, 4) <= 1.0
    assert races.adjusted(1e-9, 1) == 1.0, "one training tells nothing of a recipe"


def test_another_program_finds_the_same():
    """Of normal trainings, one race after the other: dropped by their means, the variance pooled."""
    rng = np.random.default_rng(1)
    races = reference(3, 4)
    below = []
    for _ in range(2000):
        arms = rng.normal(size=(4, 4))
        second = np.argsort(arms[1:, 0])[:2] + 1
        winner, other = second[np.argsort(arms[second, :2].mean(axis=1))]
        squares = sum(((row - row.mean()) ** 2).sum() for row in (arms[0], arms[winner], arms[other, :2]))
        t = (arms[winner].mean() - arms[0].mean()) / np.sqrt(2 * squares / 7 / 4)
        below.append(stdtr(7, t) <= races.bounds[4])
    assert np.mean(below) == pytest.approx(ALPHA, abs=0.015)
