"""Optuna's tables of one study: read in a few round trips, changed in memory, written in one transaction.

Optuna's own storage writes each attribute in a transaction of its own, with four or five round trips: on a slow link to
a database that is minutes for what is one message. The tables are Optuna's (optuna.storages._rdb.models, a schema that
has its own version in each database); what is written in them is what its RDBStorage writes.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from optuna.distributions import distribution_to_json
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState

from search.dashboard.notes import NoteOwner
from search.storage.database import Storage, insert_into
from search.storage.postgres import DEFERRED

_UNREAD = {DEFERRED: True}
_STUDIES: Any = models.StudyModel.__table__
_STUDY_USER: Any = models.StudyUserAttributeModel.__table__
_STUDY_SYSTEM: Any = models.StudySystemAttributeModel.__table__
_TRIALS: Any = models.TrialModel.__table__
_TRIAL_USER: Any = models.TrialUserAttributeModel.__table__
_TRIAL_SYSTEM: Any = models.TrialSystemAttributeModel.__table__
_PARAMS: Any = models.TrialParamModel.__table__
_VALUES: Any = models.TrialValueModel.__table__
_STEPS: Any = models.TrialIntermediateValueModel.__table__
# Notes that optuna-dashboard keeps of trials, as against the study's own.
_TRIAL_NOTES = "dashboard:%:note%"


@dataclass
class PublishedTrial:
    """One trial as Optuna's tables have it, with what is to be written. `attributes`: a person's and the program's."""

    trial_id: int
    number: int
    state: TrialState
    configuration: int | None  # that it stands for; None for a person's own trial
    user_attrs: dict[str, Any] = field(default_factory=dict)
    system_attrs: dict[str, Any] = field(default_factory=dict)
    intermediate_values: dict[int, float] = field(default_factory=dict)


class OptunaBatch:
    """The part of Optuna's storage that publishing, notes and artifacts use, for one study.

    Args:
        storage: of the ledger, whose database has Optuna's tables, too.
        study_id: Optuna's.
        user_attrs: the study's.
    """

    def __init__(self, storage: Storage, study_id: int, user_attrs: Mapping[str, Any]) -> None:
        self._storage = storage
        self.study_id = study_id
        self.user_attrs = dict(user_attrs)
        self.trials: dict[int, PublishedTrial] = {}  # by Optuna's id
        self._study_system: dict[str, Any] = {}
        self._changed: dict[tuple[Any, ...], Any] = {}  # what is to be written, by (table, owner, key)
        self._states: dict[int, tuple[TrialState, float | None]] = {}  # to be written, by Optuna's id

    @classmethod
    def open(cls, storage: Storage, name: str, attribute: str) -> OptunaBatch | None:
        """The published study of this name; None if there is none.

        Args:
            storage: the database.
            name: of the study.
            attribute: a trial's user attribute that names its configuration.
        """
        query = (
            sa.select(_STUDIES.c.study_id, _STUDY_USER.c.key, _STUDY_USER.c.value_json)
            .outerjoin(_STUDY_USER, _STUDY_USER.c.study_id == _STUDIES.c.study_id)
            .where(_STUDIES.c.study_name == name)
        )
        with storage.read() as connection:
            rows = connection.execute(query).all()
            if not rows:
                return None
            user_attrs = {row.key: json.loads(row.value_json) for row in rows if row.key is not None}
            batch = cls(storage, rows[0].study_id, user_attrs)
            batch._read_trials(connection, attribute)
        return batch

    def _read_trials(self, connection: sa.Connection, attribute: str) -> None:
        is_named = (_TRIAL_USER.c.trial_id == _TRIALS.c.trial_id) & (_TRIAL_USER.c.key == attribute)
        query = (
            sa.select(_TRIALS.c.trial_id, _TRIALS.c.number, _TRIALS.c.state, _TRIAL_USER.c.value_json)
            .outerjoin(_TRIAL_USER, is_named)
            .where(_TRIALS.c.study_id == self.study_id)
            .order_by(_TRIALS.c.trial_id)
        )
        for row in connection.execute(query):
            configuration = None if row.value_json is None else json.loads(row.value_json)
            if not isinstance(configuration, int):
                configuration = None
            self.trials[row.trial_id] = PublishedTrial(row.trial_id, row.number, row.state, configuration)

    def latest(self) -> dict[int, PublishedTrial]:
        """By configuration, its latest trial."""
        return {trial.configuration: trial for trial in self.trials.values() if trial.configuration is not None}

    def load(self, trials: Collection[PublishedTrial], *, all_notes: bool = False) -> None:
        """Read attributes, curves and notes of these trials (or the notes of all), and the study's own note."""
        ids = [trial.trial_id for trial in trials]
        with self._storage.read() as connection:
            self._read_study_system(connection, ids, all_notes)
            if not ids:
                return
            parts = [
                sa.select(sa.literal(kind).label("kind"), table.c.trial_id, table.c.key, table.c.value_json).where(
                    table.c.trial_id.in_(ids)
                )
                for kind, table in (("user", _TRIAL_USER), ("system", _TRIAL_SYSTEM))
            ]
            for row in connection.execute(sa.union_all(*parts)):
                trial = self.trials[row.trial_id]
                attributes = trial.user_attrs if row.kind == "user" else trial.system_attrs
                attributes[row.key] = json.loads(row.value_json)
            columns = (_STEPS.c.trial_id, _STEPS.c.step, _STEPS.c.intermediate_value, _STEPS.c.intermediate_value_type)
            to_value = models.TrialIntermediateValueModel.stored_repr_to_intermediate_value
            for row in connection.execute(sa.select(*columns).where(_STEPS.c.trial_id.in_(ids))):
                value = to_value(row.intermediate_value, row.intermediate_value_type)
                self.trials[row.trial_id].intermediate_values[row.step] = value

    def _read_study_system(self, connection: sa.Connection, ids: Iterable[int], all_notes: bool) -> None:
        key = _STUDY_SYSTEM.c.key
        is_wanted = [key.not_like(_TRIAL_NOTES), *(key.like(f"dashboard:{trial_id}:note%") for trial_id in ids)]
        query = sa.select(key, _STUDY_SYSTEM.c.value_json).where(_STUDY_SYSTEM.c.study_id == self.study_id)
        rows = connection.execute(query if all_notes else query.where(sa.or_(*is_wanted)))
        self._study_system.update({row.key: json.loads(row.value_json) for row in rows})

    def owner(self, trial: PublishedTrial | None = None) -> NoteOwner:
        """The study, or a trial, as the owner of its note."""
        return NoteOwner(self, self.study_id, trial.trial_id if trial else None)

    # What optuna-dashboard's notes call of a storage.

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """The study's system attributes that were read or set."""
        return dict(self._study_system)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """Set one, to be written by `write`."""
        self._study_system[key] = value
        self._changed[_STUDY_SYSTEM, study_id, key] = value

    # Changes, written by `write`.

    def set_study_user_attr(self, key: str, value: Any) -> None:
        """Set a user attribute of the study."""
        self.user_attrs[key] = value
        self._changed[_STUDY_USER, self.study_id, key] = value

    def set_user_attr(self, trial: PublishedTrial, key: str, value: Any) -> None:
        """Set a user attribute of a trial."""
        trial.user_attrs[key] = value
        self._changed[_TRIAL_USER, trial.trial_id, key] = value

    def set_system_attr(self, trial: PublishedTrial, key: str, value: Any) -> None:
        """Set a system attribute of a trial, such as a constraint or an artifact's name."""
        trial.system_attrs[key] = value
        self._changed[_TRIAL_SYSTEM, trial.trial_id, key] = value

    def set_intermediate_value(self, trial: PublishedTrial, step: int, value: float) -> None:
        """Set a point of a trial's curve."""
        trial.intermediate_values[step] = value
        self._changed[_STEPS, trial.trial_id, step] = value

    def set_state(self, trial: PublishedTrial, state: TrialState, value: float | None = None) -> None:
        """Set the state of a trial, and its value where that ends it; after that it takes no more."""
        trial.state = state
        self._states[trial.trial_id] = (state, value)

    def create(self, templates: Sequence[FrozenTrial], attribute: str) -> list[PublishedTrial]:
        """Make running or waiting trials, each whole with its attributes: a kill leaves all of them or none.

        Args:
            templates: state, parameters, attributes and curve of each.
            attribute: the user attribute that names its configuration.
        """
        if not templates:
            return []
        made = []
        with self._storage.write() as connection:
            lock = sa.select(_STUDIES.c.study_id).where(_STUDIES.c.study_id == self.study_id).with_for_update()
            connection.execute(lock, execution_options=_UNREAD)
            count_query = sa.select(sa.func.count()).where(_TRIALS.c.study_id == self.study_id)
            count = connection.execute(count_query).scalar_one()
            rows = [self._row(template, count + index) for index, template in enumerate(templates)]
            insert = sa.insert(_TRIALS).returning(_TRIALS.c.trial_id, sort_by_parameter_order=True)
            ids = connection.execute(insert, rows).scalars().all()
            for template, trial_id, row in zip(templates, ids, rows, strict=True):
                configuration = template.user_attrs[attribute]
                trial = PublishedTrial(trial_id, row["number"], template.state, configuration)
                trial.user_attrs.update(template.user_attrs)
                trial.system_attrs.update(template.system_attrs)
                trial.intermediate_values.update(template.intermediate_values)
                made.append(trial)
                _write_whole(connection, trial, template)
        self.trials.update({trial.trial_id: trial for trial in made})
        return made

    def _row(self, template: FrozenTrial, number: int) -> dict[str, Any]:
        """The trial's own row. One that waits and has no value yet was never started."""
        is_started = template.state != TrialState.WAITING or bool(template.intermediate_values)
        return {
            "study_id": self.study_id,
            "number": number,
            "state": template.state,
            "datetime_start": _now() if is_started else None,
        }

    def write(self, then: Sequence[sa.Executable] = ()) -> None:
        """Write all changes, in one transaction.

        Args:
            then: statements of the same transaction, whose answers nobody reads.

        Raises:
            UpdateFinishedTrialError: a person finished or deleted one of the trials meanwhile; nothing is written.
        """
        if not (self._changed or self._states or then):
            return
        ids = {owner for table, owner, _ in self._changed if table not in (_STUDY_USER, _STUDY_SYSTEM)}
        ids |= set(self._states)
        with self._storage.write() as connection:
            if ids:
                self._check_unfinished(connection, ids)
            for (table, owner, key), value in self._changed.items():
                _upsert(connection, table, owner, key, value)
            for trial_id, (state, value) in self._states.items():
                if value is not None:
                    _upsert(connection, _VALUES, trial_id, 0, value)
                _update_state(connection, trial_id, state)
            for statement in then:
                connection.execute(statement, execution_options=_UNREAD)
        self._changed = {}
        self._states = {}

    def _check_unfinished(self, connection: sa.Connection, ids: Collection[int]) -> None:
        query = sa.select(_TRIALS.c.trial_id, _TRIALS.c.state).where(_TRIALS.c.trial_id.in_(ids))
        rows = connection.execute(query.order_by(_TRIALS.c.trial_id).with_for_update()).all()
        if len(rows) < len(ids) or any(row.state.is_finished() for row in rows):
            raise UpdateFinishedTrialError("a trial was finished or deleted meanwhile")


def _now() -> datetime:
    """As Optuna has it."""
    return datetime.now(UTC).replace(tzinfo=None)


def _update_state(connection: sa.Connection, trial_id: int, state: TrialState) -> None:
    changes: dict[str, Any] = {"state": state}
    if state.is_finished():
        changes["datetime_complete"] = _now()
    if state != TrialState.WAITING:
        changes["datetime_start"] = sa.func.coalesce(_TRIALS.c.datetime_start, _now())
    update = sa.update(_TRIALS).where(_TRIALS.c.trial_id == trial_id).values(changes)
    connection.execute(update, execution_options=_UNREAD)


def _write_whole(connection: sa.Connection, trial: PublishedTrial, template: FrozenTrial) -> None:
    """Write what belongs to a trial that was made just now."""
    for name, value in template.params.items():
        distribution = template.distributions[name]
        row = {
            "trial_id": trial.trial_id,
            "param_name": name,
            "param_value": distribution.to_internal_repr(value),
            "distribution_json": distribution_to_json(distribution),
        }
        connection.execute(sa.insert(_PARAMS).inline().values(row), execution_options=_UNREAD)
    for key, attribute in trial.user_attrs.items():
        _upsert(connection, _TRIAL_USER, trial.trial_id, key, attribute)
    for key, attribute in trial.system_attrs.items():
        _upsert(connection, _TRIAL_SYSTEM, trial.trial_id, key, attribute)
    for step, value in trial.intermediate_values.items():
        _upsert(connection, _STEPS, trial.trial_id, step, value)


def _upsert(connection: sa.Connection, table: Any, owner: int, key: Any, value: Any) -> None:
    """Write one attribute or value, whether it is there or not."""
    if table is _STEPS:
        stored, kind = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr(value)
        names: dict[str, Any] = {"trial_id": owner, "step": key}
        values: dict[str, Any] = {"intermediate_value": stored, "intermediate_value_type": kind}
    elif table is _VALUES:
        stored, value_kind = models.TrialValueModel.value_to_stored_repr(value)
        names = {"trial_id": owner, "objective": key}
        values = {"value": stored, "value_type": value_kind}
    else:
        names = {"study_id" if "study_id" in table.c else "trial_id": owner, "key": key}
        values = {"value_json": json.dumps(value)}
    upsert = insert_into(connection, table).values(**names, **values).inline()
    upsert = upsert.on_conflict_do_update(index_elements=list(names), set_=values)
    connection.execute(upsert, execution_options=_UNREAD)
