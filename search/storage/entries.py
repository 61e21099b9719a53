"""Configurations that are entered whole, with parameters, state and results, instead of being sampled: once each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa

from search.records import Rung, State
from search.storage.ledger import Ledger
from search.storage.reader import clock, study_row
from search.storage.schema import configurations, facts, segments

Outcome = Literal["new", "replaced", "known"]


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


def fact_key(entry: Entry) -> str:
    """The key of the study's fact that says which number an entry has."""
    return f"entry:{entry.key}"


def enter(ledger: Ledger, entries: Sequence[Entry], *, replace: bool = False) -> list[tuple[Entry, int, Outcome]]:
    """Enter configurations in one transaction: a kill enters all of them or none.

    Args:
        ledger: The study's.
        entries: What to enter; what was entered before stays as it is, and keeps its number.
        replace: Whether an entry that differs from what was entered before takes its place.

    Returns:
        Each entry with its number, and what became of it.
    """
    entered = []
    with ledger.storage.write() as connection:
        study = study_row(connection, ledger.study, lock=True)
        count = sa.select(sa.func.count()).where(configurations.c.study_id == study.id)
        next_number = connection.execute(count).scalar_one()
        rows = connection.execute(sa.select(facts.c.key, facts.c.value).where(facts.c.study_id == study.id))
        fact_values = {row.key: row.value for row in rows}
        for entry in entries:
            key = fact_key(entry)
            outcome: Outcome = "known"
            if key not in fact_values:
                _insert(connection, study.id, next_number, entry)
                connection.execute(sa.insert(facts).values(study_id=study.id, key=key, value=next_number))
                fact_values[key] = next_number
                next_number += 1
                outcome = "new"
            elif replace and _replace(connection, study.id, int(fact_values[key]), entry):
                outcome = "replaced"
            entered.append((entry, int(fact_values[key]), outcome))
    return entered


def _columns(entry: Entry) -> dict[str, Any]:
    steps = entry.rungs[-1].step if entry.rungs else 0
    return {
        "origin": entry.origin,
        "drawn": dict(entry.drawn),
        "params": dict(entry.params),
        "state": entry.state,
        "reason": entry.reason,
        "failure": entry.failure,
        "steps": steps,
        "target": steps,
    }


def _insert(connection: sa.Connection, study_id: int, number: int, entry: Entry) -> None:
    inserted = connection.execute(sa.insert(configurations).values(study_id=study_id, number=number, **_columns(entry)))
    assert inserted.inserted_primary_key is not None
    _insert_rungs(connection, inserted.inserted_primary_key[0], entry)


def _replace(connection: sa.Connection, study_id: int, number: int, entry: Entry) -> bool:
    """Put the entry in the place of the configuration that was entered before; False where it says the same."""
    is_it = (configurations.c.study_id == study_id, configurations.c.number == number)
    row = connection.execute(sa.select(configurations).where(*is_it)).one()
    columns = _columns(entry)
    of_it = segments.c.configuration_id == row.id
    rungs = connection.execute(
        sa.select(segments.c.step, segments.c.value, segments.c.metrics).where(of_it).order_by(segments.c.step)
    )
    former_rungs = [(rung.step, rung.value, rung.metrics) for rung in rungs]
    new_rungs = [(rung.step, rung.value, dict(rung.metrics)) for rung in entry.rungs]
    if former_rungs == new_rungs and all(row._mapping[name] == value for name, value in columns.items()):
        return False
    connection.execute(sa.update(configurations).where(*is_it).values(revision=row.revision + 1, **columns))
    connection.execute(sa.delete(segments).where(of_it))
    _insert_rungs(connection, row.id, entry)
    return True


def _insert_rungs(connection: sa.Connection, configuration_id: int, entry: Entry) -> None:
    first_step = 0
    for rung in entry.rungs:
        connection.execute(
            sa.insert(segments).values(
                configuration_id=configuration_id,
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
