"""Optuna's pruners decide as they do inside Optuna."""

import optuna
import pytest

from search.schedulers import optuna_pruners
from search.schedulers.asha import OPTUNA_POLICIES
from search.schedulers.scheduler import SchedulerConfig
from tests.search.schedulers.test_asha import searched, value


@pytest.mark.parametrize("name", OPTUNA_POLICIES)
def test_optunas_pruners_decide_as_inside_optuna(name):
    scheduler_config = SchedulerConfig((1, 2, 4, 8), name, 2)
    for seed in range(5):
        history = searched(scheduler_config, 20, seed=seed)
        drawn = iter([trial.drawn for trial in history])

        def objective(trial, drawn=drawn):
            drawn_params = next(drawn)
            for step in scheduler_config.rungs:
                trial.report(value(drawn_params, step), step)
                if step < scheduler_config.rungs[-1] and trial.should_prune():
                    raise optuna.TrialPruned
            return value(drawn_params, scheduler_config.rungs[-1])

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        optuna_study = optuna.create_study(pruner=optuna_pruners.pruner(name, scheduler_config), study_name="study")
        optuna_study.optimize(objective, n_trials=20)
        assert [trial.curve for trial in history] == [trial.intermediate_values for trial in optuna_study.trials]
        assert any(trial.state == "pruned" for trial in history)
