"""The guided sampler in plain Optuna: Optuna's own contract for samplers, and what is ours."""

import math
import statistics

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.testing.pytest_samplers import BasicSamplerTestCase, RelativeSamplerTestCase, SingleOnlySamplerTestCase
from optuna.trial import TrialState

from search.optuna_logging import quiet_optuna
from search.samplers.guided_sampler import GuidedSampler

SPACE = {
    "rate": FloatDistribution(1e-6, 1e-3, log=True),
    "warmup": IntDistribution(0, 100, step=10),
    "kind": CategoricalDistribution(("plain", None, 2.5, True)),
}


class TestOptunasContract(BasicSamplerTestCase, RelativeSamplerTestCase, SingleOnlySamplerTestCase):
    """What Optuna asks of its own samplers: ranges, types, NaN, conditional and changing spaces, one objective."""

    @pytest.fixture
    def sampler(self):
        return lambda: GuidedSampler(seed=0)


def error_rate(params):
    """Lowest at a rate of 1e-4 and the choice None."""
    return 0.2 + 0.1 * abs(math.log10(params["rate"]) + 4.0) + 0.05 * (params["kind"] is not None)


def searched(trials=16, *, direction="minimize", value=error_rate, sampler=None, give=None):
    """A study after so many trials of `value`."""
    with quiet_optuna():
        study = optuna.create_study(direction=direction, sampler=sampler or GuidedSampler(seed=3))
    if give is not None:
        study.enqueue_trial(give)
    for _ in range(trials):
        trial = study.ask(SPACE)
        study.tell(trial, value(trial.params))
    return study


def drawn(study):
    return [trial.params for trial in study.trials]


def test_equal_seeds_draw_equal_values_and_others_do_not():
    assert drawn(searched()) == drawn(searched())
    assert drawn(searched(12)) != drawn(searched(12, sampler=GuidedSampler(seed=4)))
    assert drawn(searched(2, sampler=GuidedSampler())) != drawn(searched(2, sampler=GuidedSampler()))


def test_its_later_draws_are_better_than_random_ones():
    def later_mean(sampler):
        return statistics.mean(trial.value for trial in searched(24, sampler=sampler).trials[10:])

    guided = [later_mean(GuidedSampler(seed=seed)) for seed in range(2)]
    random = [later_mean(optuna.samplers.RandomSampler(seed=seed)) for seed in range(5)]
    assert max(guided) < min(random) - 0.03


def test_maximizing_the_negative_draws_the_same():
    negative = searched(direction="maximize", value=lambda params: -error_rate(params))
    assert drawn(negative) == drawn(searched())


def test_what_is_measured_in_and_from_where_changes_nothing():
    shifted = drawn(searched(14, value=lambda params: 256.0 * error_rate(params) - 4096.0))
    for params, expected in zip(shifted, drawn(searched(14)), strict=True):
        assert params["kind"] == expected["kind"]
        assert params["rate"] == pytest.approx(expected["rate"], rel=1e-4)


def test_pruned_trials_teach_by_what_they_reported():
    """Low rates look best early and are pruned; nothing is ever complete."""
    with quiet_optuna():
        study = optuna.create_study(sampler=GuidedSampler(seed=0))
    for _ in range(24):
        trial = study.ask(SPACE)
        trial.report(error_rate(trial.params), step=0)
        study.tell(trial, state=TrialState.PRUNED)
    late = [abs(math.log10(params["rate"]) + 4.0) for params in drawn(study)[12:]]
    assert sum(distance < 1.0 for distance in late) > 8
    assert sum(params["kind"] is None for params in drawn(study)[12:]) > 6


def test_it_keeps_away_from_what_violates_a_constraint():
    with quiet_optuna():
        study = optuna.create_study(sampler=GuidedSampler(seed=0))
    for _ in range(30):
        trial = study.ask({"rate": SPACE["rate"]})
        rate = trial.params["rate"]
        trial.set_constraint("memory", 1.0 if rate > 3e-5 else 0.0)
        study.tell(trial, 1.0 - 0.01 * math.log10(rate))
    late = [params["rate"] for params in drawn(study)[15:]]
    assert sum(rate <= 3e-5 for rate in late) > 12


def test_a_recipe_that_was_enqueued_first_is_stayed_near():
    given = {"rate": 2e-5, "warmup": 50, "kind": "plain"}
    study = searched(4, give=given)
    assert drawn(study)[0] == given
    assert sum(drawn(study)[1][name] == value for name, value in given.items()) >= 1
    assert drawn(study)[3] != given


def test_no_values_are_drawn_twice_while_there_are_others():
    small = {"depth": IntDistribution(1, 4), "kind": CategoricalDistribution(("a", "b"))}
    with quiet_optuna():
        study = optuna.create_study(sampler=GuidedSampler(seed=0))
    for _ in range(8):
        trial = study.ask(small)
        study.tell(trial, float(trial.params["depth"]))
    # The first trial is drawn knob by knob; the others know it.
    assert len({tuple(params.values()) for params in drawn(study)}) == 8


def test_workers_beside_each_other_spread_out():
    study = searched(12)
    beside = [study.ask(SPACE) for _ in range(4)]
    assert len({trial.params["rate"] for trial in beside}) == 4
    assert all(trial.params["rate"] > 0 for trial in beside)


def test_two_threads_share_it():
    with quiet_optuna():
        study = optuna.create_study(sampler=GuidedSampler(seed=0))

        def objective(trial):
            return trial.suggest_float("x", -1.0, 1.0) ** 2

        study.optimize(objective, n_trials=16, n_jobs=2)
    assert all(trial.state == TrialState.COMPLETE for trial in study.trials)
    assert len({trial.params["x"] for trial in study.trials}) == 16


def test_a_crash_says_nothing_and_odd_values_end_nothing():
    study = searched(10)
    study.tell(study.ask(SPACE), state=TrialState.FAIL)
    study.tell(study.ask(SPACE), math.inf)
    unreported = study.ask(SPACE)
    study.tell(unreported, state=TrialState.PRUNED)
    with_nan = study.ask(SPACE)
    with_nan.report(math.nan, step=3)
    study.tell(with_nan, state=TrialState.PRUNED)
    assert set(study.ask(SPACE).params) == set(SPACE)


def test_several_objectives_are_refused_by_name():
    study = optuna.create_study(directions=["minimize", "maximize"], sampler=GuidedSampler(seed=0))
    with pytest.raises(ValueError, match="GuidedSampler takes one objective; this study has 2"):
        study.ask(SPACE)
