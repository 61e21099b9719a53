"""The scheduler's promotions in plain Optuna: the contract that Optuna's own pruners are held to, and what is ours."""

import math

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from search.optuna_logging import quiet_optuna
from search.schedulers.promotion_pruner import PromotionPruner

RUNGS = (2, 4, 8)


def study_of(reports, *, direction="minimize", eta=2, rungs=RUNGS):
    """A study of running trials with these reports, by step."""
    with quiet_optuna():
        study = optuna.create_study(direction=direction, pruner=PromotionPruner(rungs, eta=eta))
    for curve in reports:
        study.add_trial(create_trial(state=TrialState.RUNNING, intermediate_values=curve))
    return study


def pruned(study, number=-1):
    return study.pruner.prune(study, study.trials[number])


def test_the_first_trial_is_not_pruned():
    assert not pruned(study_of([{2: 0.9}]))


def test_a_trial_without_a_report_is_not_pruned():
    assert not pruned(study_of([{2: 0.1}, {}]))


@pytest.mark.parametrize(("direction", "sign"), [("minimize", 1), ("maximize", -1)])
def test_one_in_eta_goes_on_and_always_the_best(direction, sign):
    """Three judged, one in two of them: the best."""
    for value, ends in ((0.3, True), (0.15, True), (0.05, False)):
        study = study_of([{2: sign * 0.1}, {2: sign * 0.2}, {2: sign * value}], direction=direction)
        assert pruned(study) == ends


def test_the_last_rung_before_the_end_lets_two_in_three_go_on():
    """As the space file's halving: the share is the scheduler's own."""
    curves = [{2: 0.1, 4: value} for value in (0.1, 0.2, 0.3)]
    assert not pruned(study_of([*curves, {2: 0.1, 4: 0.15}], eta=4))
    assert not pruned(study_of([*curves[:2], {2: 0.1, 4: 0.15}], eta=4))
    assert pruned(study_of([*curves, {2: 0.1, 4: 0.4}], eta=4))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_is_not_finite_is_pruned(value):
    assert pruned(study_of([{2: value}]))
    assert pruned(study_of([{2: -value}], direction="maximize"))
    assert not pruned(study_of([{2: value}, {2: 0.9}]))


def test_nothing_is_pruned_between_rungs_nor_at_the_end():
    better = {2: 0.1, 4: 0.1, 8: 0.1}
    assert not pruned(study_of([better, {1: 0.9}]))
    assert pruned(study_of([better, {1: 0.9, 2: 0.9}]))
    assert not pruned(study_of([better, {1: 0.9, 2: 0.9, 3: 0.9}]))
    assert not pruned(study_of([better, {4: 0.2, 8: 0.9}]))
    assert not pruned(study_of([better, {4: 0.2, 9: 0.9}]))


def test_a_report_past_a_rung_is_judged_there():
    better = [{3: 0.1, 7: 0.1}, {3: 0.2, 7: 0.2}]
    assert pruned(study_of([*better, {3: 0.9}]))
    assert not pruned(study_of([*better, {3: 0.05}]))
    assert pruned(study_of([*better, {5: 0.9}])), "at the higher of two rungs that it passed at once"


def test_trials_that_ended_count_whatever_their_state():
    def ended(state, value):
        return create_trial(
            state=state, value=value if state == TrialState.COMPLETE else None, intermediate_values={2: value}
        )

    study = study_of([])
    for state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL):
        study.add_trial(ended(state, 0.1))
    study.add_trial(create_trial(state=TrialState.RUNNING, intermediate_values={2: 0.2}))
    assert pruned(study)


@pytest.mark.parametrize("rungs", [(), (4,), (0, 4), (4, 4), (8, 4)])
def test_rungs_that_do_not_rise_are_refused(rungs):
    with pytest.raises(ValueError, match=r"rungs=\[.*\]: give two steps or more"):
        PromotionPruner(rungs)
    with pytest.raises(ValueError, match="eta=1: give 2 or more"):
        PromotionPruner(RUNGS, eta=1)


def test_several_objectives_are_refused_by_name():
    study = optuna.create_study(directions=["minimize", "minimize"], pruner=PromotionPruner(RUNGS))
    trial = create_trial(state=TrialState.RUNNING, intermediate_values={2: 0.1})
    with pytest.raises(ValueError, match="PromotionPruner takes one objective; this study has 2"):
        study.pruner.prune(study, trial)


def test_a_whole_study_with_two_threads_prunes_most_and_keeps_the_best():
    with quiet_optuna():
        sampler = optuna.samplers.RandomSampler(seed=0)
        study = optuna.create_study(sampler=sampler, pruner=PromotionPruner(RUNGS))

        def objective(trial):
            x = trial.suggest_float("x", 0.0, 1.0)
            for step in range(1, 9):
                trial.report(x + 1.0 / step, step)
                if trial.should_prune():
                    raise optuna.TrialPruned
            return x

        study.optimize(objective, n_trials=60, n_jobs=2)
    states = [trial.state for trial in study.trials]
    # The threads' turns decide what a trial is compared with, and the first ones with little: of 24 once only 12.
    assert states.count(TrialState.PRUNED) > 30
    complete = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
    assert min(trial.params["x"] for trial in complete) == min(trial.params["x"] for trial in study.trials)
    pruned_at = {trial.last_step for trial in study.trials if trial.state == TrialState.PRUNED}
    assert pruned_at <= {2, 4}


def test_it_works_with_a_storage(tmp_path):
    with quiet_optuna():
        study = optuna.create_study(storage=f"sqlite:///{tmp_path}/study.db", pruner=PromotionPruner(RUNGS, eta=2))
    ends = []
    for value in (0.1, 0.2):
        trial = study.ask({"x": FloatDistribution(0.0, 1.0)})
        trial.report(value, 2)
        ends.append(trial.should_prune())
        study.tell(trial, state=TrialState.PRUNED)
    assert ends == [False, True]
