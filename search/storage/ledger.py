"""A study's own rows: what it is, what was found out, who works on it, and what people ask of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from search.process_id import ProcessId
from search.records import ENDED, Configuration, StudyRecord, WorkerRecord
from search.storage.database import Storage
from search.storage.reader import LEASE_SECONDS, HistoryReader, clock, study_row
from search.storage.schema import configurations, facts, studies, workers

RELEASED = {"worker": None, "lease_until": None, "progress": None, "revision": configurations.c.revision + 1}


class Register:
    """One study's tables but for its claims. Every method is one transaction; none leaves anything half done."""

    def __init__(self, storage: Storage, study: str) -> None:
        self.storage = storage
        self.study = study
        self._history = HistoryReader()
        self._id = sa.select(studies.c.id).where(studies.c.name == study).scalar_subquery()

    def record(self) -> StudyRecord:
        with self.storage.read() as connection:
            row = study_row(connection, self.study)
        return StudyRecord(
            row.name,
            row.space,
            row.fingerprint,
            row.seed,
            row.trials,
            row.stopping,
            row.version,
            row.created,
            row.stop_reason,
        )

    def history(self) -> tuple[Configuration, ...]:
        with self.storage.read() as connection:
            return self._history.read(connection, study_row(connection, self.study))

    @contextlib.contextmanager
    def locked(self) -> Iterator[tuple[tuple[Configuration, ...], int]]:
        """The history and the total of configurations, while nobody else can claim, commit or end anything."""
        with self.storage.write() as connection:
            study = study_row(connection, self.study, lock=True)
            yield self._history.read(connection, study), study.trials

    def now(self) -> float:
        """The database's clock, seconds since 1970."""
        with self.storage.read() as connection:
            return clock(connection)

    def facts(self) -> dict[str, Any]:
        with self.storage.read() as connection:
            study = study_row(connection, self.study)
            rows = connection.execute(sa.select(facts.c.key, facts.c.value).where(facts.c.study_id == study.id))
            return {row.key: row.value for row in rows}

    def add_fact(self, key: str, value: Any) -> None:
        """Keep what was found out once for the whole study; the first to say it is right."""
        with self.storage.write() as connection:
            study = study_row(connection, self.study, lock=True)
            known = sa.select(facts.c.key).where(facts.c.study_id == study.id, facts.c.key == key)
            if connection.execute(known).first() is None:
                connection.execute(sa.insert(facts).values(study_id=study.id, key=key, value=value))

    def lower_fact(self, key: str, value: float) -> None:
        """Keep the smallest number that anybody found: a limit that holds for the whole study."""
        with self.storage.write() as connection:
            study = study_row(connection, self.study, lock=True)
            mine = (facts.c.study_id == study.id, facts.c.key == key)
            known = connection.execute(sa.select(facts.c.value).where(*mine)).first()
            if known is None:
                connection.execute(sa.insert(facts).values(study_id=study.id, key=key, value=value))
            elif value < known.value:
                connection.execute(sa.update(facts).where(*mine).values(value=value))

    def set_trials(self, trials: int) -> None:
        """The study's total number of configurations. Also takes back a request to stop."""
        self._set_study(trials=trials, stopping=False, stop_reason=None)

    def request_stop(self, reason: str | None = None) -> None:
        """Ask every worker of the study to save and leave. `reason`: why, where it was no person's wish."""
        self._set_study(stopping=True, stop_reason=reason)

    def _set_study(self, **values: Any) -> None:
        with self.storage.write() as connection:
            connection.execute(sa.update(studies).where(studies.c.name == self.study).values(**values))

    def open_work(self) -> int:
        """How many configurations are neither ended nor yet to be drawn: with no claim to be had, others run them."""
        return sum(1 for one in self.history() if one.state not in ENDED)

    def append(self, origin: str, drawn: Mapping[str, Any], params: Mapping[str, Any]) -> int:
        """Queue one configuration with these parameters and give its number."""
        with self.storage.write() as connection:
            study = study_row(connection, self.study, lock=True)
            mine = configurations.c.study_id == study.id
            number = connection.execute(sa.select(sa.func.count()).where(mine)).scalar_one()
            connection.execute(
                sa.insert(configurations).values(
                    study_id=study.id,
                    number=number,
                    origin=origin,
                    drawn=dict(drawn),
                    params=dict(params),
                    state="queued",
                )
            )
            return int(number)

    def requeue(self, numbers: Sequence[int]) -> list[int]:
        """Queue failed configurations again; they go on from their last rung. Gives the ones that had failed."""
        with self.storage.write() as connection:
            study = study_row(connection, self.study, lock=True)
            failed = [
                one.number
                for one in self._history.read(connection, study)
                if one.state == "failed" and one.number in numbers
            ]
            connection.execute(
                sa.update(configurations)
                .where(configurations.c.study_id == study.id, configurations.c.number.in_(failed))
                .values(**RELEASED, state="queued", reason=None, failure=None, crashes=0)
            )
            return failed

    def release_stale(self) -> list[int]:
        """Give back what is still said to be run by workers that are gone; the numbers."""
        with self.storage.write() as connection:
            study = study_row(connection, self.study, lock=True)
            history = self._history.read(connection, study)
            stale = [one.number for one in history if one.state == "paused" and one.worker is not None]
            here = configurations.c.number.in_(stale) & (configurations.c.state == "running")
            connection.execute(
                sa.update(configurations)
                .where(configurations.c.study_id == study.id, here)
                .values(**RELEASED, state="paused", reason=None)
            )
            return stale

    def sign_in(self, worker: ProcessId, place: str, version: str) -> None:
        """Say that this worker is there, or still there."""
        with self.storage.write() as connection:
            study = study_row(connection, self.study)
            now = float(study.now)
            mine = (workers.c.study_id == study.id, workers.c.worker == str(worker))
            known = connection.execute(sa.update(workers).where(*mine).values(seen=now))
            if not known.rowcount:
                values = {"place": place[:255], "version": version, "since": now, "seen": now}
                connection.execute(sa.insert(workers).values(study_id=study.id, worker=str(worker), **values))

    def sign_out(self, worker: ProcessId) -> None:
        """Say that this worker leaves, and take those off the list who died."""
        gone = [one.identity for one in self.workers() if not one.alive]
        with self.storage.write() as connection:
            study = study_row(connection, self.study)
            here = workers.c.worker.in_([str(worker), *gone[:90]])
            connection.execute(sa.delete(workers).where(workers.c.study_id == study.id, here))

    def workers(self) -> tuple[WorkerRecord, ...]:
        """Who signed in and did not leave, the first to come first."""
        with self.storage.read() as connection:
            study = study_row(connection, self.study)
            now = float(study.now)
            query = sa.select(workers).where(workers.c.study_id == study.id).order_by(workers.c.since, workers.c.worker)
            rows = connection.execute(query).all()
        found = []
        for row in rows:
            identity = ProcessId.parse(row.worker)
            alive = row.seen + LEASE_SECONDS > now and not (identity and identity.known_dead())
            found.append(WorkerRecord(row.worker, row.place, row.version, row.since, row.seen, alive))
        return tuple(found)
