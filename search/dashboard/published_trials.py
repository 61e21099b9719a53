"""Which of Optuna's trials stands for which configuration: three values a trial, where Optuna reads all of each."""

from __future__ import annotations

import json
from dataclasses import dataclass

import sqlalchemy as sa
from optuna.trial import TrialState

from search.storage.database import Storage

# The user attribute that ties a trial to its configuration. Optuna's own number may differ: a trial that a person
# deleted or finished in the dashboard gets a successor.
CONFIGURATION = "configuration"

_QUERY = sa.text(
    "SELECT trials.trial_id, trials.state, attributes.value_json FROM trials "
    "JOIN trial_user_attributes AS attributes ON attributes.trial_id = trials.trial_id "
    "WHERE trials.study_id = :study AND attributes.key = :key ORDER BY trials.number"
)


@dataclass(frozen=True)
class PublishedTrial:
    """A trial by Optuna's id of it, and the state that Optuna has it in."""

    trial_id: int
    state: TrialState


def published_trials(storage: Storage, study_id: int) -> dict[int, PublishedTrial]:
    """The latest trial of each configuration, by the configuration's number.

    Args:
        storage: the database that has Optuna's tables, too.
        study_id: Optuna's id of the study.
    """
    with storage.read() as connection:
        rows = connection.execute(_QUERY, {"study": study_id, "key": CONFIGURATION}).all()
    trials = {}
    for row in rows:
        number = json.loads(row.value_json)
        if isinstance(number, int):
            trials[number] = PublishedTrial(row.trial_id, TrialState[row.state])
    return trials
