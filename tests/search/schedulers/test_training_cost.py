"""What segments cost, by what was seen of the trial, of its kind, and of others."""

import pytest

from search.records import Configuration, Rung
from search.schedulers.scheduler import SchedulerConfig
from search.schedulers.training_cost import TrainingCosts

CONFIG = SchedulerConfig((10, 20, 40))


def trial(number, model, *seconds, state="paused"):
    """Trained so many seconds to each of the rungs, evaluations of one second not counted."""
    rungs = [
        Rung(step, 0.5, {"train_seconds": spent, "eval_seconds": 1.0})
        for step, spent in zip(CONFIG.rungs, seconds, strict=False)
    ]
    return Configuration(number, "sampled", {}, {"model": model}, state, rungs=tuple(rungs))


def costs(*trials):
    return TrainingCosts(CONFIG, trials, lambda trial: trial.params["model"])


def test_a_segment_costs_what_it_cost_others_of_the_kind():
    seen = costs(trial(0, "tiny", 10.0, 10.0, 30.0), trial(1, "large", 100.0))
    assert seen.of(trial(2, "tiny"), 20, 40) == 31.0
    assert seen.of(trial(2, "tiny"), 0, 40) == 11 + 11 + 31
    assert seen.of(trial(2, "tiny"), 30, 40) == 31 / 2, "half of the steps to the rung"
    assert seen.of(trial(1, "large", 100.0), 10, 20) == 101.0


def test_a_rung_that_nobody_reached_costs_as_the_furthest_one_did_a_step():
    seen = costs(trial(0, "tiny", 20.0, 10.0))  # the first ten steps took longer: something was prepared
    assert seen.of(trial(1, "tiny"), 20, 40) == 20 * 1.0 + 1.0


def test_a_slow_trial_stays_slow():
    slow = trial(1, "tiny", 32.0)
    seen = costs(trial(0, "tiny", 10.0, 10.0), slow)
    assert seen.of(slow, 10, 20) == pytest.approx(11.0 * 33.0 / 22.0)
    quick = 22.0 * 22.0 / 33.0  # two thirds of what its kind takes, so far
    assert seen.mean(0, 10) == pytest.approx((quick + 33.0) / 2)
    assert seen.variation > 0.5


def test_a_kind_that_was_never_seen_costs_the_mean_and_one_trial_does_not_vary():
    seen = costs(trial(0, "tiny", 9.0), trial(1, "large", 99.0))
    assert seen.of(trial(2, "base"), 0, 10) == 55.0
    assert costs(trial(0, "tiny", 9.0)).variation == 0.0


def test_what_was_trained_again_counts():
    again = Rung(10, 0.5, {"train_seconds": 10.0, "repeated_seconds": 5.0, "eval_seconds": None})
    seen = costs(Configuration(0, "sampled", {}, {"model": "tiny"}, "paused", rungs=(again,)))
    assert seen.mean(0, 10) == 15.0
