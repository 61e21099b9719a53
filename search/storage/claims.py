"""The lease protocol: SQL that claims a segment, and commits, fails or releases it, inside one transaction.

A claim carries a token, one higher than the configuration's last one. Whatever a worker does with its claim names that
token, so a worker that lost its lease changes nothing (fencing). `Ledger` opens the transactions.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from search.imported import without_imported
from search.process_id import ProcessId
from search.records import IMPORTED, Claim, Configuration, Rung, drawn_key
from search.schedulers import scheduler
from search.schedulers.asha import ALL_POLICIES
from search.schedulers.scheduler import SchedulerConfig
from search.storage.database import insert_into
from search.storage.postgres import DEFERRED
from search.storage.reader import LEASE_SECONDS, StoredMetrics, clock_sql
from search.storage.schema import configurations, segments, studies, workers

_UNREAD = {DEFERRED: True}  # it travels with the next statement, see postgres.py
_HELD = {"state": "running", "progress": None, "reason": None}


def released(state: str, reason: str | None) -> dict[str, Any]:
    """Column values of a configuration that no worker holds any more."""
    return {
        "state": state,
        "reason": reason,
        "worker": None,
        "lease_until": None,
        "progress": None,
        "revision": configurations.c.revision + 1,
    }


def claim_next(
    connection: sa.Connection,
    study: sa.Row[Any],
    history: Sequence[Configuration],
    worker: ProcessId,
    config: SchedulerConfig,
    closing: bool,
) -> Claim | None:
    """Lease the next segment to `worker`; None if there is none for now.

    If no work is left, the configurations that are still paused are pruned. `study` is its locked row (`study_row`).
    """
    state = scheduler.SchedulerState(config, without_imported(history), study.trials, closing)
    policy = ALL_POLICIES[config.strategy]
    segment = scheduler.choose(policy, state)
    if segment is None:
        if not state.is_busy and state.is_whole:
            _prune_paused(connection, study.id, history, config)
        return None
    lease = {
        **_HELD,
        "worker": str(worker),
        "lease_until": float(study.now) + LEASE_SECONDS,
        "target": segment.last_step,
    }
    configuration = None if segment.number is None else history[segment.number]
    number = configuration.number if configuration else len(history)
    token = configuration.token + 1 if configuration else 1
    write_lease = _lease_again if configuration else _lease_new
    write_lease(connection, study.id, number, {**lease, "token": token})
    return Claim(
        study=study.name,
        number=number,
        token=token,
        worker=str(worker),
        drawn=configuration.drawn if configuration else None,
        params=configuration.params if configuration else None,
        first_step=segment.first_step,
        last_step=segment.last_step,
        history=scheduler.history_for_draw(policy, history, segment.number),
    )


def _lease_new(connection: sa.Connection, study_id: int, number: int, lease: Mapping[str, Any]) -> None:
    """Add a configuration, to be sampled by the worker that leases it."""
    insert = sa.insert(configurations).inline()
    values = {"study_id": study_id, "number": number, "origin": "sampled", **lease}
    connection.execute(insert.values(**values), execution_options=_UNREAD)


def _lease_again(connection: sa.Connection, study_id: int, number: int, lease: Mapping[str, Any]) -> None:
    """Lease a configuration that exists."""
    update = sa.update(configurations).where(_is_configuration(study_id, number))
    connection.execute(update.values(revision=configurations.c.revision + 1, **lease), execution_options=_UNREAD)


def _prune_paused(
    connection: sa.Connection, study_id: int, history: Sequence[Configuration], config: SchedulerConfig
) -> None:
    for configuration in history:
        if configuration.state == "paused":
            connection.execute(
                sa.update(configurations)
                .where(_is_configuration(study_id, configuration.number))
                .values(**released("pruned", scheduler.pruning_reason(config, configuration))),
                execution_options=_UNREAD,
            )


def release_all(connection: sa.Connection, study_id: int, worker: ProcessId) -> None:
    """Release every claim in the name of a worker that trains nothing: it never learned of them."""
    connection.execute(
        sa.update(configurations)
        .where(
            configurations.c.study_id == study_id,
            configurations.c.worker == str(worker),
            configurations.c.state == "running",
        )
        .values(**released("paused", None))
    )


def study_lock(name: str) -> sa.Select[Any]:
    """A statement that keeps every other transaction that needs the study's lock waiting until its own one ends."""
    return sa.select(studies.c.id).where(studies.c.name == name).with_for_update()


def record_drawn(
    connection: sa.Connection, claim: Claim, drawn: Mapping[str, Any], params: Mapping[str, Any], origin: str
) -> tuple[bool, bool]:
    """Record the claimed configuration's parameters; (the claim is held, another configuration has these values).

    Nothing is recorded where another one has them that had none in the claim's history, or was not in it. The study
    must be locked.
    """
    known = [trial.number for trial in claim.history if trial.drawn is not None]
    rows = connection.execute(
        sa.select(
            configurations.c.number,
            configurations.c.drawn,
            configurations.c.origin,
            configurations.c.token,
            configurations.c.state,
        )
        .join(studies, studies.c.id == configurations.c.study_id)
        .where(studies.c.name == claim.study, configurations.c.number.not_in(known))
    ).all()
    key = drawn_key(drawn)
    is_held = False
    is_repeated = False
    for row in rows:
        if row.number == claim.number:
            is_held = row.token == claim.token and row.state == "running"
        elif row.origin != IMPORTED and row.drawn is not None and drawn_key(row.drawn) == key:
            is_repeated = origin == "sampled"
    if is_held and not is_repeated:
        values = {"drawn": dict(drawn), "params": dict(params), "origin": origin}
        update = _update_held(claim).values(revision=configurations.c.revision + 1, **values)
        connection.execute(update, execution_options=_UNREAD)
    return is_held, is_repeated


def update_if_held(connection: sa.Connection, claim: Claim, **values: Any) -> bool:
    """Update the claimed configuration if the claim's token is still the last; returns whether it was.

    This locks the row alone and not the study, so no other worker's claim waits for it.
    """
    return connection.execute(_update_held(claim).values(**values)).rowcount == 1


def _update_held(claim: Claim) -> sa.Update:
    """An update of the claimed configuration that changes nothing if its token is not the last any more."""
    return sa.update(configurations).where(*_conditions_held(claim))


def _conditions_held(claim: Claim) -> tuple[sa.ColumnElement[bool], ...]:
    study_id = sa.select(studies.c.id).where(studies.c.name == claim.study).scalar_subquery()
    return (
        configurations.c.study_id == study_id,
        configurations.c.number == claim.number,
        configurations.c.token == claim.token,
        configurations.c.state == "running",
    )


@dataclass(frozen=True)
class SegmentOutcome:
    """What a claimed segment came to: the value at its last step, what else was measured, and the code's version."""

    value: float
    metrics: Mapping[str, Any]
    version: str | None = None


@dataclass(frozen=True)
class SignIn:
    """A worker that is alive: where it runs, in words, and the version of its code."""

    worker: ProcessId
    location: str
    version: str


def sign_in(connection: sa.Connection, study: str, signed: SignIn) -> None:
    """Record that a worker is alive."""
    now = clock_sql(connection)
    texts = (str(signed.worker), signed.location[:255], signed.version)
    row = sa.select(studies.c.id, *map(sa.literal, texts), now, now).where(studies.c.name == study)
    insert = insert_into(connection, workers).from_select(
        ["study_id", "worker", "place", "version", "since", "seen"], row
    )
    upsert = insert.on_conflict_do_update(
        index_elements=[workers.c.study_id, workers.c.worker], set_={"seen": insert.excluded.seen}
    )
    connection.execute(upsert, execution_options=_UNREAD)


def renew(connection: sa.Connection, claim: Claim, progress: Mapping[str, Any]) -> tuple[bool, bool]:
    """Extend the lease; (the claim is held, the study is asked to stop)."""
    lease_until = clock_sql(connection) + LEASE_SECONDS
    lease = _update_held(claim).values(lease_until=lease_until, progress=dict(progress))
    connection.execute(lease, execution_options=_UNREAD)
    is_held = sa.exists(sa.select(configurations.c.id).where(*_conditions_held(claim)))
    row = connection.execute(sa.select(is_held, studies.c.stopping).where(studies.c.name == claim.study)).first()
    return (bool(row[0]), bool(row[1])) if row is not None else (False, False)


def commit(
    connection: sa.Connection,
    study: sa.Row[Any],
    history: Sequence[Configuration],
    claim: Claim,
    result: SegmentOutcome,
    config: SchedulerConfig,
) -> Configuration | None:
    """Record a segment's result and decide what becomes of its configuration.

    The study's row must be locked: nobody else changes the configuration then.

    Returns:
        The configuration as it is now; None if the claim is not held.
    """
    before = history[claim.number]
    if (before.token, before.worker) != (claim.token, claim.worker):
        return None
    policy = ALL_POLICIES[config.strategy]
    state, reason = scheduler.decide(policy, config, history, study.trials, claim, result.value, result.metrics)
    connection.execute(
        sa.insert(segments)
        .inline()
        .values(
            configuration_id=sa.select(configurations.c.id).where(*_conditions_held(claim)).scalar_subquery(),
            first_step=claim.first_step,
            step=claim.last_step,
            value=result.value,
            metrics=dict(result.metrics),
            worker=claim.worker,
            token=claim.token,
            committed=float(study.now),
            version=result.version,
        ),
        execution_options=_UNREAD,
    )
    update = _update_held(claim).values(**released(state, reason), steps=claim.last_step, crashes=0)
    connection.execute(update, execution_options=_UNREAD)
    metrics = StoredMetrics(json.dumps(dict(result.metrics)))
    rung = Rung(claim.last_step, result.value, metrics, result.version, claim.worker)
    rungs = (*before.rungs, rung)
    return dataclasses.replace(before, rungs=rungs, state=state, reason=reason, worker=None, progress={})


def committed_state(connection: sa.Connection, study_id: int, claim: Claim) -> str | None:
    """The configuration's state if this very claim's result is recorded already, else None."""
    state = connection.execute(
        sa.select(configurations.c.state)
        .join(segments, configurations.c.id == segments.c.configuration_id)
        .where(
            _is_configuration(study_id, claim.number),
            segments.c.step == claim.last_step,
            segments.c.token == claim.token,
        )
    ).scalar()
    return "paused" if state == "running" else state


def record_crash(connection: sa.Connection, study_id: int, claim: Claim, reason: str, allowed: int) -> str | None:
    """Pause the configuration, or fail it if it crashed `allowed` times before; returns its state, None if not held.

    The study's row must be locked.
    """
    crashes = connection.execute(
        sa.select(configurations.c.crashes).where(_is_configuration(study_id, claim.number))
    ).scalar_one()
    if crashes < allowed:
        values = {**released("paused", reason), "crashes": crashes + 1}
    else:
        values = {**released("failed", reason), "failure": "crashed"}
    return values["state"] if update_if_held(connection, claim, **values) else None


def _is_configuration(study_id: int, number: int) -> sa.ColumnElement[bool]:
    return (configurations.c.study_id == study_id) & (configurations.c.number == number)
