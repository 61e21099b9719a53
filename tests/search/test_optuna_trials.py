"""Trials of a plain Optuna study as configurations."""

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from search.optuna_logging import quiet_optuna
from search.optuna_trials import sign, to_configuration


def of(state, **more):
    value = 0.5 if state == TrialState.COMPLETE else None
    return create_trial(state=state, value=value, **more)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (TrialState.WAITING, "queued"),
        (TrialState.RUNNING, "running"),
        (TrialState.COMPLETE, "finished"),
        (TrialState.FAIL, "failed"),
    ],
)
def test_states_by_their_names_here(state, expected):
    assert to_configuration(of(state), {}).state == expected


def test_curve_and_origin():
    trial = of(TrialState.RUNNING, system_attrs={"fixed_params": {"x": 1.0}})
    configuration = to_configuration(trial, {8: 0.2, 4: 0.3}, {"x": 1.0})
    assert configuration.curve == {4: 0.3, 8: 0.2}
    assert (configuration.steps, configuration.value) == (8, 0.2)
    assert (configuration.origin, configuration.drawn) == ("start", {"x": 1.0})
    assert to_configuration(of(TrialState.RUNNING), {}).origin == "sampled"


def test_what_the_parameters_are_to_blame_for():
    infeasible = of(TrialState.COMPLETE)
    infeasible.set_constraint("memory", 1.0)
    assert to_configuration(infeasible, {4: 0.3}).failure == "oom"
    assert to_configuration(of(TrialState.PRUNED), {}).failure == "diverged"
    assert to_configuration(of(TrialState.PRUNED, intermediate_values={4: 0.3}), {4: 0.3}).failure is None
    assert to_configuration(of(TrialState.FAIL), {}).failure == "crashed"
    assert to_configuration(of(TrialState.FAIL, intermediate_values={4: 0.3}), {4: 0.3}).failure is None


def test_the_sign_makes_lower_better():
    with quiet_optuna():
        assert sign(optuna.create_study(), "X") == 1.0
        assert sign(optuna.create_study(direction="maximize"), "X") == -1.0
        with pytest.raises(ValueError, match="X takes one objective; this study has 2"):
            sign(optuna.create_study(directions=["minimize", "minimize"]), "X")
