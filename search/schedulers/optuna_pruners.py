"""Optuna's own pruners, applied to the ledger's trials with the settings that Optuna's users get."""

from __future__ import annotations

import math
from typing import Any

import optuna
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, SuccessiveHalvingPruner
from optuna.trial import FrozenTrial, TrialState, create_trial

from search.optuna_logging import quiet_optuna
from search.records import Configuration
from search.schedulers.scheduler import SchedulerConfig, SchedulerState

# The trial attribute in which Optuna's successive halving keeps a rung's value; it reads those of the other trials.
_COMPLETED_RUNG = "completed_rung_{}"


def pruner(name: str, config: SchedulerConfig) -> BasePruner:
    """Optuna's default settings, except for the resources, which are the study's rungs."""
    first = config.rungs[0]
    if name == "optuna-median":
        return MedianPruner()
    if name == "optuna-halving":
        return SuccessiveHalvingPruner(min_resource=first, reduction_factor=config.eta)
    assert name == "optuna-hyperband"
    return HyperbandPruner(min_resource=first, max_resource=config.last_rung, reduction_factor=config.eta)


def should_prune(name: str, state: SchedulerState, judged: Configuration) -> bool:
    """Whether Optuna's pruner ends the trial `judged` after the last value of its curve."""
    optuna_pruner = pruner(name, state.config)
    with quiet_optuna():
        # Hyperband draws a trial's bracket from the study's name and the trial's number.
        study = optuna.create_study(pruner=optuna_pruner, direction="minimize", study_name="study")
    for trial in state.history:
        early_stopping_rate = _early_stopping_rate(optuna_pruner, study, trial.number)
        study.add_trial(_frozen_trial(trial, trial.number == judged.number, state.config, early_stopping_rate))
    for frozen in study.get_trials(deepcopy=False):
        if frozen.user_attrs["number"] == judged.number:
            return bool(optuna_pruner.prune(study, frozen))
    raise AssertionError(f"trial {judged.number} is not in its own history")


def _early_stopping_rate(optuna_pruner: BasePruner, study: optuna.Study, number: int) -> int:
    """Of the successive halving that judges this trial: Hyperband has one rate a bracket, the others have 0."""
    if not isinstance(optuna_pruner, HyperbandPruner):
        return 0
    if not optuna_pruner._pruners:
        optuna_pruner._try_initialization(study)
    probe = create_trial(state=TrialState.RUNNING)
    probe.number = number
    return int(optuna_pruner._get_bracket_id(study, probe))


def _frozen_trial(
    trial: Configuration, is_judged: bool, config: SchedulerConfig, early_stopping_rate: int
) -> FrozenTrial:
    curve = {step: value for step, value in trial.curve.items() if math.isfinite(value)}
    if is_judged or trial.state in ("running", "paused", "queued"):
        state = TrialState.RUNNING
    elif trial.state == "finished":
        state = TrialState.COMPLETE
    else:
        state = TrialState.PRUNED
    steps = sorted(curve)
    if is_judged:
        steps = steps[:-1]  # the pruner judges the last value now, and writes its mark itself
    marks: dict[str, Any] = {}
    rung = 0
    for step in steps:
        while step >= config.rungs[0] * config.eta ** (early_stopping_rate + rung):
            marks[_COMPLETED_RUNG.format(rung)] = curve[step]
            rung += 1
    return create_trial(
        state=state,
        value=curve[max(curve)] if state == TrialState.COMPLETE else None,
        intermediate_values=curve,
        system_attrs=marks,
        user_attrs={"number": trial.number},
    )
