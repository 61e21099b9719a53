"""Who publishes a study to Optuna now: one worker at a time, since Optuna has no "create unless it exists"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from search.process_id import ProcessId
from search.storage import claims
from search.storage.ledger import Ledger
from search.storage.postgres import DEFERRED
from search.storage.reader import LEASE_SECONDS, clock_sql, is_current, study_row
from search.storage.schema import configurations, studies

RENEWED_AFTER = LEASE_SECONDS / 4


class PublisherLease:
    """This process's turn to publish a study.

    Args:
        ledger: over a connection of its own.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._process = ProcessId.current()

    def look(self, ledger: Ledger) -> tuple[bool, bool]:
        """Whether anything is to be published, and whether another live worker does so; most times there is nothing.

        Args:
            ledger: over the worker's own connection, whose transactions may have to wait for this one round trip.
        """
        is_due = (
            (configurations.c.study_id == studies.c.id)
            & (configurations.c.published < configurations.c.revision)
            & configurations.c.drawn.is_not(None)
        )
        with ledger.storage.read() as connection:
            row = study_row(connection, ledger.study, sa.exists().where(is_due).label("is_due"))
        return bool(row.is_due), self._is_taken(row)

    def take(self, seconds: float = LEASE_SECONDS) -> bool:
        """Become the study's only publisher for some seconds, or (0) stop being it. False: another worker is.

        The study's row is changed if it is as it was read, in one message: no claim waits for this longer than that.
        """
        storage = self._ledger.storage
        with storage.read() as connection:
            row = study_row(connection, self._ledger.study)
        if self._is_taken(row):
            return False
        publisher = str(self._process) if seconds else None
        with storage.write() as connection:
            is_study = (studies.c.id == row.id) & studies.c.publisher.is_not_distinct_from(row.publisher)
            values = {"publisher": publisher, "publisher_until": clock_sql(connection) + seconds}
            update = sa.update(studies).where(is_study).values(values)
            connection.execute(update, execution_options={DEFERRED: True})
        if not seconds:
            return True
        with storage.read() as connection:
            return bool(study_row(connection, self._ledger.study).publisher == publisher)

    def _is_taken(self, row: sa.Row[Any]) -> bool:
        """Whether another live worker is the publisher, by the study's row."""
        holder = ProcessId.parse(row.publisher or "")
        if not holder or holder == self._process or not is_current(row.publisher_until, float(row.now)):
            return False
        return not holder.known_dead()


def marks(study: str, revisions: Mapping[int, int]) -> list[sa.Executable]:
    """Statements that record which revision of these configurations, by number, Optuna has; 0: none."""
    if not revisions:
        return []
    # A worker that commits and claims changes two configurations: the lock keeps both from waiting for each other.
    statements: list[sa.Executable] = [claims.study_lock(study)]
    study_id = sa.select(studies.c.id).where(studies.c.name == study).scalar_subquery()
    for number, revision in revisions.items():
        is_configuration = (configurations.c.study_id == study_id) & (configurations.c.number == number)
        statements.append(sa.update(configurations).where(is_configuration).values(published=revision))
    return statements
