"""Reading the ledger: rows to frozen records, and the database's own clock."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from search.errors import UserError
from search.identity import Identity
from search.records import Configuration, Rung
from search.schema import configurations, segments, studies


def clock(connection: sa.Connection) -> float:
    """Seconds since 1970 by the database's clock: workers' own clocks differ, leases must not."""
    if connection.dialect.name == "sqlite":
        query = "SELECT (julianday('now') - 2440587.5) * 86400.0"
    else:
        query = "SELECT EXTRACT(EPOCH FROM clock_timestamp())"
    return float(connection.exec_driver_sql(query).scalar_one())


def study_row(connection: sa.Connection, name: str, *, lock: bool = False) -> sa.Row[Any]:
    """The study's row, locked for this transaction if asked (SQLite's writers are alone anyway)."""
    query = sa.select(studies).where(studies.c.name == name)
    row = connection.execute(query.with_for_update() if lock else query).first()
    if row is None:
        names = connection.execute(sa.select(studies.c.name).order_by(studies.c.name)).scalars().all()
        there = ", ".join(names[:5]) + (" ..." if len(names) > 5 else "") if names else "none"
        raise UserError(f"{name}: no such study in this storage; there is: {there}")
    return row


def held(row: sa.Row[Any], now: float) -> bool:
    """Whether a live worker has this configuration: its lease runs and it is not known to be dead."""
    if row.state != "running" or (row.lease_until or 0.0) <= now:
        return False
    identity = Identity.parse(row.worker or "")
    return identity is None or not identity.known_dead()


def read_history(connection: sa.Connection, study_id: int) -> tuple[Configuration, ...]:
    """Every configuration of the study, by number, with its committed rungs.

    One whose worker died is said to be paused, which is what it is: it goes on from its last checkpoint.
    """
    now = clock(connection)
    rungs: dict[int, list[Rung]] = {}
    results = (
        sa.select(configurations.c.number, segments.c.step, segments.c.value, segments.c.metrics)
        .join(configurations, configurations.c.id == segments.c.configuration_id)
        .where(configurations.c.study_id == study_id)
        .order_by(segments.c.step)
    )
    for number, step, value, metrics in connection.execute(results):
        rungs.setdefault(number, []).append(Rung(step, value, metrics))
    rows = connection.execute(
        sa.select(configurations).where(configurations.c.study_id == study_id).order_by(configurations.c.number)
    )
    return tuple(
        Configuration(
            number=row.number,
            origin=row.origin,
            drawn=row.drawn,
            params=row.params,
            state="paused" if row.state == "running" and not held(row, now) else row.state,
            reason=row.reason,
            failure=row.failure,
            rungs=tuple(rungs.get(row.number, ())),
            worker=row.worker,
            progress=row.progress or {},
            revision=row.revision,
            published=row.published,
            target=row.target,
        )
        for row in rows
    )
