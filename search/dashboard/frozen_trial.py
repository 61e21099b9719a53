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
# Decimals of published values: error rates over fewer than 100,000 words keep their order.
DECIMALS = 5
EXACT = "tmsearch:exact"  # the system attribute with what was rounded, in full; a dashboard doesn't show it
FIXED_PARAMS = "fixed_params"  # Optuna's system attribute: a dashboard shows these as a waiting trial's parameters


def published_value(value: float) -> float:
    """As a person reads it."""
    return round(value, DECIMALS)


def curve(configuration: Configuration) -> dict[int, float]:
    """The values that compare with the study's own, as they are published: Optuna knows of no others."""
    return {step: published_value(value) for step, value in _comparable(configuration).items()}


def _comparable(configuration: Configuration) -> dict[int, float]:
    return {
        rung.step: rung.value
        for rung in configuration.rungs
        if math.isfinite(rung.value) and compares(configuration, rung)
    }


def exact(configuration: Configuration) -> Mapping[str, Any]:
    """What was rounded, in full: the values by step, and the last rung's metrics; empty where nothing was."""
    values = _comparable(configuration)
    metrics = {key: value for key, value in _shown_metrics(configuration).items() if isinstance(value, float)}
    if all(published_value(value) == value for value in (*values.values(), *metrics.values())):
        return {}
    return {"values": {str(step): value for step, value in values.items()}, "metrics": metrics}


def published_state(configuration: Configuration) -> TrialState:
    """The state in which Optuna shows a configuration.

    One that is paused or queued is WAITING: it has parameters and waits for a worker. RUNNING, it would look like work
    for as long as nobody resumes the study, and Optuna's TPE would count it as bad. PRUNED, it could not go on, as
    Optuna lets nobody change a trial that has ended. What it costs: Optuna draws no curve of a waiting trial.
    """
    ended = final_state(configuration)
    if ended is not None:
        return ended
    return TrialState.RUNNING if configuration.state == "running" else TrialState.WAITING


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
    for key, value in _shown_metrics(configuration).items():
        shown[key] = published_value(value) if isinstance(value, float) else value
    for cost in ("train_seconds", "eval_seconds"):
        shown[cost] = round(configuration.total(cost), 3)
    if configuration.total("repeated_seconds"):
        shown["repeated_seconds"] = round(configuration.total("repeated_seconds"), 3)
    shown["tmsearch_state"] = configuration.state  # Optuna's WAITING is both queued and paused
    if configuration.ended and configuration.reason:
        shown["reason"] = configuration.reason
    return shown


def system_attributes(configuration: Configuration, params: Mapping[str, Any]) -> Mapping[str, Any]:
    """What Optuna and the dashboard read of a trial: constraints, a waiting trial's parameters, values in full.

    Args:
        configuration: that is published.
        params: its parameters, by their published names.
    """
    written: dict[str, Any] = {**constraints(configuration)}
    if published_state(configuration) == TrialState.WAITING:
        written[FIXED_PARAMS] = dict(params)
    full = exact(configuration)
    if full:
        written[EXACT] = full
    return written


def _shown_metrics(configuration: Configuration) -> dict[str, Any]:
    """The last rung's metrics, without lists and costs."""
    return {
        key: value
        for key, value in configuration.metrics.items()
        if isinstance(value, (int, float, str, bool)) and not key.endswith("_seconds")
    }


def published_name(space: Space, name: str) -> str:
    """A knob as the published study names it: a factor on the recommended value has a name that says so."""
    return FACTOR.format(name) if getattr(space.search[name], "times", None) else name
