"""One study's tables as an object: every method is one transaction, and none leaves anything half done."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from search.errors import RepeatedDrawError, RunError
from search.imported import without_imported
from search.process_id import ProcessId
from search.records import CRASHES_ALLOWED, Claim, Configuration, StudyRecord, WorkerRecord
from search.schedulers import scheduler
from search.schedulers.scheduler import SchedulerConfig
from search.storage import claims
from search.storage.claims import SegmentOutcome, SignIn
from search.storage.database import Storage
from search.storage.postgres import DEFERRED
from search.storage.reader import LEASE_SECONDS, HistoryReader, clock, is_current, limit_leases, study_row
from search.storage.schema import configurations, facts, studies, workers

STARTING = "starting"  # key of the fact that says which processes set the study's total


class Ledger:
    """One study's configurations, facts and workers, and the claims on its segments.

    A transaction whose answer got lost may be repeated: `claim` and `commit` with `again` find what it did.
    """

    def __init__(self, storage: Storage, study: str) -> None:
        self.storage = storage
        self.study = study
        self._history = HistoryReader()
        self._created: float | None = None  # when the study was made that this object has read

    def beside(self) -> Ledger:
        """The same ledger over a connection of its own, for what must not hold up this one."""
        ledger = Ledger(self.storage.beside, self.study)
        ledger._history = self._history
        return ledger

    # The study: its record, its history, and what people ask of it.

    def record(self) -> StudyRecord:
        """The study's own row."""
        with self.storage.read() as connection:
            return self._record(study_row(connection, self.study))

    def history(self) -> tuple[Configuration, ...]:
        """Every configuration, by number."""
        return self.snapshot()[0]

    def snapshot(self) -> tuple[tuple[Configuration, ...], StudyRecord]:
        """Every configuration, by number, and the study's own row."""
        with self.storage.read() as connection:
            row = study_row(connection, self.study)
            return self._history.read(connection, row), self._record(row)

    def _record(self, row: sa.Row[Any]) -> StudyRecord:
        if self._created is None:
            self._created = row.created
        values = {field.name: getattr(row, field.name) for field in dataclasses.fields(StudyRecord)}
        return StudyRecord(**values)

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

    def set_trials(self, trials: int, worker: ProcessId | None = None) -> int:
        """Set the study's total number of configurations; also takes back a request to stop.

        Args:
            trials: The total that is wanted.
            worker: The process that will work towards it. While others work, the total is not lowered: of several
                programs that start at once the largest total holds.

        Returns:
            The total, never below the number of configurations that the study has.
        """
        process = worker or ProcessId.current()
        others = any(record.alive and record.identity != str(process) for record in self.workers())
        with self.storage.write() as connection:
            study = study_row(connection, self.study, lock=True)
            starting = self._starting(connection, study, process)
            least = len(without_imported(self._history.read(connection, study)))
            if others or len(starting) > 1:
                least = max(least, study.trials)
            total = max(trials, least)
            is_study = studies.c.id == study.id
            connection.execute(
                sa.update(studies).where(is_study).values(trials=total, stopping=False, stop_reason=None)
            )
            is_fact = (facts.c.study_id == study.id) & (facts.c.key == STARTING)
            connection.execute(sa.delete(facts).where(is_fact))
            if worker is not None:
                connection.execute(sa.insert(facts).values(study_id=study.id, key=STARTING, value=starting))
        return total

    def _starting(self, connection: sa.Connection, study: sa.Row[Any], process: ProcessId) -> dict[str, float]:
        """The live processes that set a total, and when: a run sets it before its workers sign in."""
        now = float(study.now)
        is_fact = (facts.c.study_id == study.id) & (facts.c.key == STARTING)
        fact = connection.execute(sa.select(facts.c.value).where(is_fact)).first()
        live = {str(process): now}
        for text, since in (fact.value if fact else {}).items():
            earlier = ProcessId.parse(text)
            if earlier is None or earlier.known_dead():
                continue
            if earlier.machine == process.machine or is_current(since + LEASE_SECONDS, now):
                live[text] = since
        return live

    def cover_added(self) -> None:
        """Raise the total to the number of configurations that the study has."""
        with self.storage.write() as connection:
            study = study_row(connection, self.study, lock=True)
            count = len(without_imported(self._history.read(connection, study)))
            if count > study.trials:
                connection.execute(sa.update(studies).where(studies.c.id == study.id).values(trials=count))

    def withdraw_stop(self) -> None:
        """Take back a request to stop."""
        self._set_study(stopping=False, stop_reason=None)

    def request_stop(self, reason: str | None = None) -> None:
        """Ask every worker of the study to save and leave. `reason`: why, if no person asked for it."""
        self._set_study(stopping=True, stop_reason=reason)

    def _set_study(self, **values: Any) -> None:
        with self.storage.write() as connection:
            connection.execute(sa.update(studies).where(studies.c.name == self.study).values(**values))

    # Facts: what was found out once for the whole study.

    def facts(self) -> dict[str, Any]:
        """Every fact by its key."""
        with self.storage.read() as connection:
            of_study = sa.select(facts.c.key, facts.c.value).join(studies, studies.c.id == facts.c.study_id)
            rows = connection.execute(of_study.where(studies.c.name == self.study)).all()
            if not rows:
                study_row(connection, self.study)  # there may be no such study
            return {row.key: row.value for row in rows}

    def add_fact(self, key: str, value: Any) -> None:
        """Record a fact, unless another worker recorded it first."""
        with self.storage.write() as connection:
            study = study_row(connection, self.study, lock=True)
            is_fact = (facts.c.study_id == study.id) & (facts.c.key == key)
            if connection.execute(sa.select(facts.c.key).where(is_fact)).first() is None:
                connection.execute(sa.insert(facts).values(study_id=study.id, key=key, value=value))

    def lower_fact(self, key: str, value: float) -> None:
        """Record a limit that holds for the whole study: the smallest number that any worker reported."""
        with self.storage.write() as connection:
            study = study_row(connection, self.study, lock=True)
            is_fact = (facts.c.study_id == study.id) & (facts.c.key == key)
            fact = connection.execute(sa.select(facts.c.value).where(is_fact)).first()
            if fact is None:
                connection.execute(sa.insert(facts).values(study_id=study.id, key=key, value=value))
            elif value < fact.value:
                connection.execute(sa.update(facts).where(is_fact).values(value=value))

    # Configurations: what a person adds, repeats or frees.

    def append(self, origin: str, drawn: Mapping[str, Any], params: Mapping[str, Any]) -> int:
        """Queue one configuration with these parameters; returns its number."""
        with self.storage.write() as connection:
            study = study_row(connection, self.study, lock=True)
            count = sa.select(sa.func.count()).where(configurations.c.study_id == study.id)
            number = int(connection.execute(count).scalar_one())
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
            return number

    def requeue(self, numbers: Sequence[int]) -> list[int]:
        """Queue failed configurations again, to resume from their last rung; returns those that had failed."""
        with self.storage.write() as connection:
            study = study_row(connection, self.study, lock=True)
            failed = [
                configuration.number
                for configuration in self._history.read(connection, study)
                if configuration.state == "failed" and configuration.number in numbers
            ]
            connection.execute(
                sa.update(configurations)
                .where(configurations.c.study_id == study.id, configurations.c.number.in_(failed))
                .values(**claims.released("queued", None), failure=None, crashes=0)
            )
            return failed

    def release_stale(self) -> list[int]:
        """Release what dead workers still hold; returns the numbers."""
        with self.storage.write() as connection:
            study = study_row(connection, self.study, lock=True)
            stale = [
                configuration.number
                for configuration in self._history.read(connection, study)
                if configuration.state == "paused" and configuration.worker is not None
            ]
            connection.execute(
                sa.update(configurations)
                .where(
                    configurations.c.study_id == study.id,
                    configurations.c.number.in_(stale),
                    configurations.c.state == "running",
                )
                .values(**claims.released("paused", None))
            )
            return stale

    # Workers: which processes run the study.

    def sign_in(self, worker: ProcessId, location: str, version: str) -> None:
        """Record that this worker is alive. `location`: where it runs, in words; `version`: of its code."""
        with self.storage.write() as connection:
            claims.sign_in(connection, self.study, SignIn(worker, location, version))

    def sign_out(self, worker: ProcessId) -> None:
        """Record that this worker leaves, and remove the dead ones."""
        dead = [record.identity for record in self.workers() if not record.alive]
        with self.storage.write() as connection:
            study_id = sa.select(studies.c.id).where(studies.c.name == self.study).scalar_subquery()
            leaving = workers.c.worker.in_([str(worker), *dead[:90]])  # SQLite limits how many values a query takes
            delete = sa.delete(workers).where(workers.c.study_id == study_id, leaving)
            connection.execute(delete, execution_options={DEFERRED: True})

    def workers(self) -> tuple[WorkerRecord, ...]:
        """The workers that signed in and did not sign out, the earliest first."""
        with self.storage.read() as connection:
            study = study_row(connection, self.study)
            now = float(study.now)
            query = sa.select(workers).where(workers.c.study_id == study.id).order_by(workers.c.since, workers.c.worker)
            rows = connection.execute(query).all()
        records = []
        for row in rows:
            process = ProcessId.parse(row.worker)
            alive = is_current(row.seen + LEASE_SECONDS, now) and not (process and process.known_dead())
            records.append(WorkerRecord(row.worker, row.place, row.version, row.since, row.seen, alive))
        return tuple(records)

    # Claims: the protocol is in claims.py.

    def claim(
        self, worker: ProcessId, config: SchedulerConfig, closing: bool = False, *, again: bool = False
    ) -> Claim | None:
        """Claim the next segment; None if there is none for now, or the study is asked to stop.

        Args:
            closing: Start nothing new, since the time left only suffices for the leader (see `SchedulerState`).
            again: The answer to an earlier call got lost, so release what this worker claimed without knowing.

        Raises:
            RunError: The study is another one of the same name by now.
        """
        if self._history.is_empty:
            self.history()  # a worker's first reading of a long study, while no other worker waits for the lock
        with self.storage.write() as connection:
            study = study_row(connection, self.study, lock=True)
            self._check_same(study)
            if study.stopping:
                return None
            if again:
                claims.release_all(connection, study.id, worker)
            history = self._reader(again).read(connection, study)
            claim = claims.claim_next(connection, study, history, worker, config, closing)
            if claim is None:
                limit_leases(connection, study)
            return claim

    def _check_same(self, study: sa.Row[Any]) -> None:
        if self._created not in (None, study.created):
            raise RunError(f"{self.study}: the study was deleted and made again while this program worked on it")

    def _reader(self, again: bool) -> HistoryReader:
        # The shared reader must not remember a change that may yet be rolled back.
        return HistoryReader() if again else self._history

    def set_params(self, claim: Claim, drawn: Mapping[str, Any], params: Mapping[str, Any], origin: str) -> bool:
        """Record what was sampled, before anything is trained with it. False: the claim was lost.

        Raises:
            RepeatedDrawError: a configuration has these values that the claim's history does not know them of.
        """
        with self.storage.write() as connection:
            connection.execute(claims.study_lock(self.study), execution_options={DEFERRED: True})
            is_held, is_repeated = claims.record_drawn(connection, claim, drawn, params, origin)
        if is_held and is_repeated:
            raise RepeatedDrawError(f"trial {claim.number}: drawn by another worker just now")
        return is_held

    def renew(self, claim: Claim, progress: Mapping[str, Any], signed: SignIn | None = None) -> tuple[bool, bool]:
        """Extend the lease; returns (the claim is still held, the study is asked to stop).

        Args:
            progress: What `status` shows of a running configuration.
            signed: The worker, to sign in as well.
        """
        with self.storage.write() as connection:
            if signed is not None:
                claims.sign_in(connection, self.study, signed)
            return claims.renew(connection, claim, progress)

    def commit(
        self,
        claim: Claim,
        value: float,
        metrics: Mapping[str, Any],
        config: SchedulerConfig,
        *,
        version: str | None = None,
        again: bool = False,
    ) -> str | None:
        """Record a segment's result; returns the configuration's new state. None: the claim was lost, nothing written.

        Result, decision and release are one transaction, so a kill leaves either all of them or none.

        Args:
            version: Of the code that trained it.
            again: The answer to an earlier call got lost, so return its state if it was recorded.
        """
        result = SegmentOutcome(value, metrics, version)
        return self.commit_and_claim(claim, result, config, None, again=again)[0]

    def commit_and_claim(
        self,
        claim: Claim,
        result: SegmentOutcome,
        config: SchedulerConfig,
        worker: ProcessId | None,
        seconds_left: float = math.inf,
        *,
        again: bool = False,
    ) -> tuple[str | None, Claim | None]:
        """As `commit`, then as `claim`, in one transaction; returns the state and the next claim.

        Args:
            worker: That claims; None: nothing is claimed.
            seconds_left: Start nothing new if the leader takes longer (see `SchedulerState.closing`).
            again: The answer to an earlier call got lost.
        """
        with self.storage.write() as connection:
            study = study_row(connection, self.study, lock=True)
            state = claims.committed_state(connection, study.id, claim) if again else None
            if state is not None and worker is not None:
                claims.release_all(connection, study.id, worker)  # what that call may have claimed
            history = self._reader(again).read(connection, study)
            if state is None:
                trial = claims.commit(connection, study, history, claim, result, config)
                if trial is None:
                    return None, None
                state = trial.state
                history = (*history[: trial.number], trial, *history[trial.number + 1 :])
            if worker is None or study.stopping:
                return state, None
            closing = scheduler.seconds_to_finish(config, history) > seconds_left
            return state, claims.claim_next(connection, study, history, worker, config, closing)

    def fail(self, claim: Claim, failure: str, reason: str) -> bool:
        """End the configuration as failed, for `failure`: diverged, oom or crashed. False: the claim was lost."""
        with self.storage.write() as connection:
            return claims.update_if_held(connection, claim, **claims.released("failed", reason), failure=failure)

    def crashed(self, claim: Claim, reason: str, allowed: int = CRASHES_ALLOWED) -> str | None:
        """Release the segment of a training process that died, to be tried `allowed` times more, then fail it.

        Returns the configuration's new state, paused or failed. None: the claim was lost, nothing written.
        """
        with self.storage.write() as connection:
            study = study_row(connection, self.study, lock=True)
            return claims.record_crash(connection, study.id, claim, reason, allowed)

    def release(self, claim: Claim, reason: str | None = None) -> bool:
        """Give the segment back; it resumes from its last checkpoint, on any worker. False: the claim was lost."""
        with self.storage.write() as connection:
            return claims.update_if_held(connection, claim, **claims.released("paused", reason))
