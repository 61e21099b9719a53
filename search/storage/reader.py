"""Reading the ledger: rows to frozen records, and the database's own clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from search.errors import UserError
from search.process_id import ProcessId
from search.records import Configuration, Rung
from search.storage.schema import configurations, segments, studies

# A supervisor renews every few seconds; a machine that swaps or a database that restarts gets a minute.
LEASE_SECONDS = 60.0


# Seconds since 1970 by the database's clock, and when its server started: workers' own clocks differ, leases must not.
_CLOCKS = {
    "sqlite": ("(julianday('now') - 2440587.5) * 86400.0", "0.0"),
    "postgresql": ("EXTRACT(EPOCH FROM clock_timestamp())", "EXTRACT(EPOCH FROM pg_postmaster_start_time())"),
}


def clock(connection: sa.Connection) -> float:
    """Seconds since 1970 by the database's clock."""
    return float(connection.exec_driver_sql(f"SELECT {_CLOCKS[connection.dialect.name][0]}").scalar_one())


def study_row(connection: sa.Connection, name: str, *, lock: bool = False) -> sa.Row[Any]:
    """The study's row, locked for this transaction if asked (SQLite's writers are alone anyway).

    Beside its columns it has `now`, the database's clock, and `started`, when the server began.
    """
    now, started = _CLOCKS[connection.dialect.name]
    times = sa.literal_column(now, sa.Float).label("now"), sa.literal_column(started, sa.Float).label("started")
    query = sa.select(studies, *times).where(studies.c.name == name)
    row = connection.execute(query.with_for_update() if lock else query).first()
    if row is None:
        names = connection.execute(sa.select(studies.c.name).order_by(studies.c.name)).scalars().all()
        there = ", ".join(names[:5]) + (" ..." if len(names) > 5 else "") if names else "none"
        raise UserError(f"{name}: no such study in this storage; there is: {there}")
    return row


def _expiry(study: sa.Row[Any]) -> float:
    """Leases that ended before this time, by the database's clock, are over.

    While a server was down nobody could renew: after its start everyone who was at work gets a lease's time to say
    so, before others take the work over.
    """
    now, started = float(study.now), float(study.started)
    return now if now - started > LEASE_SECONDS else started - LEASE_SECONDS


def held(state: str, worker: str | None, lease_until: float | None, expiry: float) -> bool:
    """Whether a live worker has a configuration: its lease runs and it is not known to be dead."""
    if state != "running" or (lease_until or 0.0) <= expiry:
        return False
    identity = ProcessId.parse(worker or "")
    return identity is None or not identity.known_dead()


# What changes without a new revision, and says which rows have one.
_LIGHT = sa.select(
    configurations.c.number,
    configurations.c.revision,
    configurations.c.state,
    configurations.c.worker,
    configurations.c.lease_until,
    configurations.c.progress,
    configurations.c.published,
).order_by(configurations.c.number)


class HistoryReader:
    """A study's configurations as the ledger has them. Rows whose revision is known are not read again.

    So a claim among hundreds of configurations reads a few numbers of each, and not all their curves and clips.
    """

    def __init__(self) -> None:
        self._study: tuple[int, float] | None = None
        self._known: dict[int, Configuration] = {}

    def read(self, connection: sa.Connection, study: sa.Row[Any]) -> tuple[Configuration, ...]:
        """Every configuration of the study, by number, with its committed rungs.

        One whose worker died is said to be paused, which is what it is: it goes on from its last checkpoint.
        """
        if self._study != (study.id, study.created):
            self._study, self._known = (study.id, study.created), {}
        light = connection.execute(_LIGHT.where(configurations.c.study_id == study.id)).all()
        known = self._known
        stale = [row.number for row in light if row.number not in known or known[row.number].revision != row.revision]
        if stale:
            known = self._known = {**known, **_read(connection, study.id, stale)}
        expiry = _expiry(study)
        return tuple(_now(known[row.number], row, expiry) for row in light)


def _now(known: Configuration, row: Any, expiry: float) -> Configuration:
    """`known` with what may have changed since it was read."""
    lives = held(row.state, row.worker, row.lease_until, expiry)
    state: Any = "paused" if row.state == "running" and not lives else row.state
    if state == known.state and row.published == known.published and not row.progress and row.worker == known.worker:
        return known  # nearly all of a long study
    return replace(known, state=state, worker=row.worker, progress=row.progress or {}, published=row.published)


def _read(connection: sa.Connection, study_id: int, numbers: Sequence[int]) -> dict[int, Configuration]:
    here = configurations.c.study_id == study_id
    if len(numbers) < 100:  # databases limit how many values one query takes
        here = here & configurations.c.number.in_(numbers)
    rungs: dict[int, list[Rung]] = {}
    results = (
        sa.select(configurations.c.number, segments)
        .join(configurations, configurations.c.id == segments.c.configuration_id)
        .where(here)
        .order_by(segments.c.step)
    )
    rows = connection.execute(sa.select(configurations).where(here)).all()
    for one in connection.execute(results):
        rungs.setdefault(one.number, []).append(Rung(one.step, one.value, one.metrics, one.version, one.worker))
    return {
        row.number: Configuration(
            number=row.number,
            origin=row.origin,
            drawn=row.drawn,
            params=row.params,
            state=row.state,
            reason=row.reason,
            failure=row.failure,
            rungs=tuple(rungs.get(row.number, ())),
            worker=row.worker,
            revision=row.revision,
            published=row.published,
            target=row.target,
            token=row.token,
        )
        for row in rows
    }
