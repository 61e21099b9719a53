"""Configurations that are entered whole, with parameters, state and results, instead of being sampled: once each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from search.records import Rung, State
from search.storage.ledger import Ledger
from search.storage.reader import clock, study_row
from search.storage.schema import configurations, facts, segments


@dataclass(frozen=True)
class Entry:
    """A configuration to enter. `key` identifies it within its study, so that it is entered only once."""

    key: str
    origin: str
    drawn: Mapping[str, Any]
    params: Mapping[str, Any]
    state: State
    rungs: tuple[Rung, ...] = ()
    reason: str | None = None
    failure: str | None = None


def enter(ledger: Ledger, entries: Sequence[Entry]) -> list[tuple[Entry, int, bool]]:
    """Enter configurations in one transaction: a kill enters all of them or none.

    Returns:
        Each entry with its number, and whether it is new.
    """
    entered = []
    with ledger.storage.write() as connection:
        study = study_row(connection, ledger.study, lock=True)
        count = sa.select(sa.func.count()).where(configurations.c.study_id == study.id)
        next_number = connection.execute(count).scalar_one()
        rows = connection.execute(sa.select(facts.c.key, facts.c.value).where(facts.c.study_id == study.id))
        fact_values = {row.key: row.value for row in rows}
        for entry in entries:
            key = f"entry:{entry.key}"
            is_new = key not in fact_values
            if is_new:
                _insert(connection, study.id, next_number, entry)
                connection.execute(sa.insert(facts).values(study_id=study.id, key=key, value=next_number))
                fact_values[key] = next_number
                next_number += 1
            entered.append((entry, int(fact_values[key]), is_new))
    return entered


def _insert(connection: sa.Connection, study_id: int, number: int, entry: Entry) -> None:
    steps = entry.rungs[-1].step if entry.rungs else 0
    inserted = connection.execute(
        sa.insert(configurations).values(
            study_id=study_id,
            number=number,
            origin=entry.origin,
            drawn=dict(entry.drawn),
            params=dict(entry.params),
            state=entry.state,
            reason=entry.reason,
            failure=entry.failure,
            steps=steps,
            target=steps,
        )
    )
    assert inserted.inserted_primary_key is not None
    first_step = 0
    for rung in entry.rungs:
        connection.execute(
            sa.insert(segments).values(
                configuration_id=inserted.inserted_primary_key[0],
                first_step=first_step,
                step=rung.step,
                value=rung.value,
                metrics=dict(rung.metrics),
                worker=entry.origin,
                token=0,
                committed=clock(connection),
            )
        )
        first_step = rung.step
