"""The lease protocol: SQL that claims a segment, and commits, fails or releases it, inside one transaction.

A claim carries a token, one higher than the configuration's last one. Whatever a worker does with its claim names that
token, so a worker that lost its lease changes nothing (fencing). `Ledger` opens the transactions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from search.imported import without_imported
from search.process_id import ProcessId
from search.records import IMPORTED, Claim, Configuration, drawn_key
from search.schedulers import scheduler
from search.schedulers.asha import ALL_POLICIES
from search.schedulers.scheduler import SchedulerConfig
from search.storage.reader import LEASE_SECONDS
from search.storage.schema import configurations, segments, studies

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
    write_lease = _lease_again if configuration else _lease_new
    token = write_lease(connection, study.id, number, lease)
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


def _lease_new(connection: sa.Connection, study_id: int, number: int, lease: Mapping[str, Any]) -> int:
    """Add a configuration, to be sampled by the worker that leases it; returns its token."""
    token = 1
    connection.execute(
        sa.insert(configurations).values(study_id=study_id, number=number, origin="sampled", token=token, **lease)
    )
    return token


def _lease_again(connection: sa.Connection, study_id: int, number: int, lease: Mapping[str, Any]) -> int:
    """Lease a configuration that exists; returns its new token."""
    is_configuration = _is_configuration(study_id, number)
    connection.execute(
        sa.update(configurations)
        .where(is_configuration)
        .values(token=configurations.c.token + 1, revision=configurations.c.revision + 1, **lease)
    )
    return int(connection.execute(sa.select(configurations.c.token).where(is_configuration)).scalar_one())


def _prune_paused(
    connection: sa.Connection, study_id: int, history: Sequence[Configuration], config: SchedulerConfig
) -> None:
    for configuration in history:
        if configuration.state == "paused":
            connection.execute(
                sa.update(configurations)
                .where(_is_configuration(study_id, configuration.number))
                .values(**released("pruned", scheduler.pruning_reason(config, configuration)))
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


def is_drawn_meanwhile(connection: sa.Connection, study_id: int, claim: Claim, drawn: Mapping[str, Any]) -> bool:
    """Whether a configuration has these values that had none in the claim's history, or was not in it."""
    known = [trial.number for trial in claim.history if trial.drawn is not None]
    rows = connection.execute(
        sa.select(configurations.c.drawn).where(
            configurations.c.study_id == study_id,
            configurations.c.number.not_in([*known, claim.number]),
            configurations.c.origin != IMPORTED,
        )
    )
    key = drawn_key(drawn)
    return any(row.drawn is not None and drawn_key(row.drawn) == key for row in rows)


def update_if_held(connection: sa.Connection, claim: Claim, **values: Any) -> bool:
    """Update the claimed configuration if the claim's token is still the last; returns whether it was.

    This locks the row alone and not the study, so no other worker's claim waits for it.
    """
    study_id = sa.select(studies.c.id).where(studies.c.name == claim.study).scalar_subquery()
    updated = connection.execute(
        sa.update(configurations)
        .where(
            configurations.c.study_id == study_id,
            configurations.c.number == claim.number,
            configurations.c.token == claim.token,
            configurations.c.state == "running",
        )
        .values(**values)
    )
    return updated.rowcount == 1


def commit(
    connection: sa.Connection,
    study: sa.Row[Any],
    history: Sequence[Configuration],
    claim: Claim,
    value: float,
    metrics: Mapping[str, Any],
    config: SchedulerConfig,
    version: str | None,
) -> str | None:
    """Record a segment's result and decide what becomes of its configuration; returns its state, None if not held.

    The study's row must be locked.
    """
    policy = ALL_POLICIES[config.strategy]
    state, reason = scheduler.decide(policy, config, history, study.trials, claim, value, metrics)
    if not update_if_held(connection, claim, **released(state, reason), steps=claim.last_step, crashes=0):
        return None
    is_configuration = _is_configuration(study.id, claim.number)
    connection.execute(
        sa.insert(segments).values(
            configuration_id=connection.execute(sa.select(configurations.c.id).where(is_configuration)).scalar_one(),
            first_step=claim.first_step,
            step=claim.last_step,
            value=value,
            metrics=dict(metrics),
            worker=claim.worker,
            token=claim.token,
            committed=float(study.now),
            version=version,
        )
    )
    return state


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
