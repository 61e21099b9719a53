"""Configurations that are entered whole, with parameters, state and results, instead of being drawn: once each."""

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
    """`key` tells it from all others of its study: what was entered under it once is not entered again."""

    key: str
    origin: str
    drawn: Mapping[str, Any]
    params: Mapping[str, Any]
    state: State
    rungs: tuple[Rung, ...] = ()
    reason: str | None = None
    failure: str | None = None


def enter(ledger: Ledger, entries: Sequence[Entry]) -> list[tuple[Entry, int, bool]]:
    """Each with its number, and whether it is new. All in one transaction: a kill enters all of them or none."""
    entered = []
    with ledger.storage.write() as connection:
        study = study_row(connection, ledger.study, lock=True)
        mine = configurations.c.study_id == study.id
        number = connection.execute(sa.select(sa.func.count()).where(mine)).scalar_one()
        rows = connection.execute(sa.select(facts.c.key, facts.c.value).where(facts.c.study_id == study.id))
        known = {row.key: row.value for row in rows}
        for one in entries:
            key = f"entry:{one.key}"
            if key in known:
                entered.append((one, int(known[key]), False))
                continue
            _insert(connection, study.id, number, one)
            connection.execute(sa.insert(facts).values(study_id=study.id, key=key, value=number))
            known[key] = number
            entered.append((one, number, True))
            number += 1
    return entered


def _insert(connection: sa.Connection, study_id: int, number: int, one: Entry) -> None:
    steps = one.rungs[-1].step if one.rungs else 0
    inserted = connection.execute(
        sa.insert(configurations).values(
            study_id=study_id,
            number=number,
            origin=one.origin,
            drawn=dict(one.drawn),
            params=dict(one.params),
            state=one.state,
            reason=one.reason,
            failure=one.failure,
            steps=steps,
            target=steps,
        )
    )
    assert inserted.inserted_primary_key is not None
    before = 0
    for rung in one.rungs:
        connection.execute(
            sa.insert(segments).values(
                configuration_id=inserted.inserted_primary_key[0],
                first_step=before,
                step=rung.step,
                value=rung.value,
                metrics=dict(rung.metrics),
                worker=one.origin,
                token=0,
                committed=clock(connection),
            )
        )
        before = rung.step
