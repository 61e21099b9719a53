"""How a configuration looks as an Optuna trial: its curve, state, constraints and attributes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from optuna.trial import TrialState, create_trial

from search.imported import compares
from search.records import BAD_PARAMETERS, Configuration
from search.samplers.optuna_space import MEMORY_CONSTRAINT
from search.space.search_space import Space

FACTOR = "{}_times_recommended"


def curve(configuration: Configuration) -> dict[int, float]:
    """The values that compare with the study's own: Optuna knows of no others."""
    return {
        rung.step: rung.value
        for rung in configuration.rungs
        if math.isfinite(rung.value) and compares(configuration, rung)
    }


def final_state(configuration: Configuration) -> TrialState | None:
    """The state in which Optuna shows a configuration that has ended; None while it has not."""
    if not configuration.ended:
        return None
    if configuration.state == "failed" and configuration.failure not in BAD_PARAMETERS:
        return TrialState.FAIL
    # Trained elsewhere, so that it does not compare: complete it would be Optuna's best, and lack knobs in importances.
    if configuration.state != "finished" or not all(compares(configuration, rung) for rung in configuration.rungs[-1:]):
        return TrialState.PRUNED
    return TrialState.COMPLETE if configuration.rungs else TrialState.PRUNED


def constraints(configuration: Configuration) -> Mapping[str, float]:
    """Optuna's constraints as system attributes, above 0 where infeasible: a configuration that memory cannot hold."""
    if configuration.failure != "oom":
        return {}
    probe = create_trial(state=TrialState.RUNNING)
    probe.set_constraint(MEMORY_CONSTRAINT, 1.0)
    return dict(probe.system_attrs)


def attributes(configuration: Configuration) -> Mapping[str, Any]:
    """What a dashboard shows of a trial beside its parameters: resolved values, costs, steps, reason of the end."""
    shown: dict[str, Any] = {"origin": configuration.origin, "steps": configuration.steps}
    shown.update(configuration.params or {})
    for key, value in configuration.metrics.items():
        if isinstance(value, (int, float, str, bool)) and not key.endswith("_seconds"):
            shown[key] = value
    for cost in ("train_seconds", "eval_seconds"):
        shown[cost] = round(configuration.total(cost), 3)
    if configuration.total("repeated_seconds"):
        shown["repeated_seconds"] = round(configuration.total("repeated_seconds"), 3)
    if configuration.ended and configuration.reason:
        shown["reason"] = configuration.reason
    return shown


def published_name(space: Space, name: str) -> str:
    """A knob as the published study names it: a factor on the recommended value has a name that says so."""
    return FACTOR.format(name) if getattr(space.search[name], "times", None) else name
