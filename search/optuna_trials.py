"""Trials of a plain Optuna study as the records that samplers and schedulers decide on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna import Study
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from search.records import Configuration, Rung, State

_STATES: dict[TrialState, State] = {
    TrialState.WAITING: "queued",
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}
_ENQUEUED = "fixed_params"  # the system attribute that Study.enqueue_trial sets


def sign(study: Study, user: str) -> float:
    """What a study's values are multiplied by, so that lower is better.

    Args:
        study: a study with one objective.
        user: the name of the class that asks, for the error.

    Raises:
        ValueError: the study has several objectives.
    """
    if len(study.directions) > 1:
        raise ValueError(f"{user} takes one objective; this study has {len(study.directions)}")
    return -1.0 if study.direction == StudyDirection.MAXIMIZE else 1.0


def to_configuration(
    trial: FrozenTrial, curve: Mapping[int, float], drawn: Mapping[str, Any] | None = None
) -> Configuration:
    """The trial as a configuration that has the values of `curve`, by step; lower is better.

    What a crash (FAIL) reported counts, and its parameters are not to blame. They are for a trial that violates a
    constraint, and for one that was pruned before it reported a value.
    """
    failure = None
    if any(value > 0 for value in trial.constraints.values()):
        failure = "oom"
    elif trial.state == TrialState.PRUNED and not trial.intermediate_values:
        failure = "diverged"
    elif trial.state == TrialState.FAIL and not curve:
        failure = "crashed"
    return Configuration(
        number=trial.number,
        origin="start" if _ENQUEUED in trial.system_attrs else "sampled",
        drawn=drawn,
        params=drawn,
        state=_STATES[trial.state],
        failure=failure,
        rungs=tuple(Rung(step, value, {}) for step, value in sorted(curve.items())),
    )
