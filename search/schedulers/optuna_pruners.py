"""Optuna's own pruners, asked about a configuration of the ledger: each as Optuna's users get it."""

from __future__ import annotations

import math
from typing import Any

import optuna
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, SuccessiveHalvingPruner
from optuna.trial import TrialState, create_trial

from search.optuna_logging import quiet_optuna
from search.records import Configuration
from search.schedulers.scheduler import SchedulerConfig, SchedulerState

# What Optuna's successive halving keeps in a trial for each of its rungs; it reads the others' to judge one.
_COMPLETED = "completed_rung_{}"


def pruner(name: str, config: SchedulerConfig) -> BasePruner:
    """Optuna's default settings, but for the resources, which are the study's rungs."""
    if name == "optuna-median":
        return MedianPruner()
    if name == "optuna-halving":
        return SuccessiveHalvingPruner(min_resource=config.rungs[0], reduction_factor=config.eta)
    assert name == "optuna-hyperband"
    return HyperbandPruner(min_resource=config.rungs[0], max_resource=config.rungs[-1], reduction_factor=config.eta)


def should_prune(name: str, study: SchedulerState, mine: Configuration) -> bool:
    """Whether Optuna's pruner ends `mine` after the last value of its curve."""
    asked = pruner(name, study.config)
    with quiet_optuna():
        # Hyperband draws a trial's bracket from the study's name and the trial's number.
        known = optuna.create_study(pruner=asked, direction="minimize", study_name="study")
    for one in study.history:
        known.add_trial(_trial(one, mine.number, study.config, _bracket_start(asked, known, one)))
    trial = next(one for one in known.get_trials(deepcopy=False) if one.user_attrs["number"] == mine.number)
    return bool(asked.prune(known, trial))


def _bracket_start(asked: BasePruner, known: optuna.Study, one: Configuration) -> int:
    """The early-stopping rate of the halving that judges this trial: Hyperband has one a bracket."""
    if not isinstance(asked, HyperbandPruner):
        return 0
    if not asked._pruners:
        asked._try_initialization(known)
    probe = create_trial(state=TrialState.RUNNING)
    probe.number = one.number
    return int(asked._get_bracket_id(known, probe))


def _trial(one: Configuration, mine: int, config: SchedulerConfig, rate: int) -> optuna.trial.FrozenTrial:
    curve = {step: value for step, value in one.curve.items() if math.isfinite(value)}
    if one.number == mine or one.state in ("running", "paused", "queued"):
        state = TrialState.RUNNING
    else:
        state = TrialState.COMPLETE if one.state == "finished" else TrialState.PRUNED
    # What the pruner wrote when it was asked at each of the trial's values; at the last of `mine` it is asked now.
    marks: dict[str, Any] = {}
    rung = 0
    for step in sorted(curve)[: -1 if one.number == mine else None]:
        while step >= config.rungs[0] * config.eta ** (rate + rung):
            marks[_COMPLETED.format(rung)] = curve[step]
            rung += 1
    return create_trial(
        state=state,
        value=curve[max(curve)] if state == TrialState.COMPLETE else None,
        intermediate_values=curve,
        system_attrs=marks,
        user_attrs={"number": one.number},
    )
