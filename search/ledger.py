"""The truth: configurations, segments, results, claims, leases (SQLAlchemy)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from search import ladder
from search.history import clock, read_history, study_row
from search.identity import Identity
from search.imported import own
from search.records import CRASHES_ALLOWED, ENDED, Claim, Configuration, StudyRecord
from search.schema import configurations, facts, segments, studies
from search.storage import Storage
from search.strategies import EVERY

# A supervisor renews every few seconds; a machine that swaps or a database that restarts gets a minute.
LEASE_SECONDS = 60.0


class Ledger:
    """One study's tables. Every method is one transaction; none leaves anything half done."""

    def __init__(self, storage: Storage, study: str) -> None:
        self.storage = storage
        self.study = study

    def record(self) -> StudyRecord:
        with self.storage.read() as connection:
            row = study_row(connection, self.study)
        return StudyRecord(
            row.name, row.space, row.fingerprint, row.seed, row.trials, row.stopping, row.version, row.created
        )

    def history(self) -> tuple[Configuration, ...]:
        with self.storage.read() as connection:
            return read_history(connection, study_row(connection, self.study).id)

    @contextlib.contextmanager
    def locked(self) -> Iterator[tuple[tuple[Configuration, ...], int]]:
        """The history and the total of configurations, while nobody else can claim, commit or end anything."""
        with self.storage.write() as connection:
            study = study_row(connection, self.study, lock=True)
            yield read_history(connection, study.id), study.trials

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
        self._set_study(trials=trials, stopping=False)

    def request_stop(self) -> None:
        """Ask every worker of the study to save and leave."""
        self._set_study(stopping=True)

    def _set_study(self, **values: Any) -> None:
        with self.storage.write() as connection:
            connection.execute(sa.update(studies).where(studies.c.name == self.study).values(**values))

    def claim(self, worker: Identity, rule: ladder.Rule, closing: bool = False) -> Claim | None:
        """Take the next segment; None where there is none for now (see `open_work`).

        Where nothing is left to do, what rests has lost: the same transaction ends it. `closing`: see ladder.Study.
        """
        with self.storage.write() as connection:
            study = study_row(connection, self.study, lock=True)
            if study.stopping:
                return None
            now = clock(connection)
            history = read_history(connection, study.id)
            known = ladder.Study(rule, own(history), study.trials, closing)
            work = ladder.choose(EVERY[rule.strategy], known)
            if work is None:
                if not known.held and not closing:
                    self._end(connection, study.id, history, rule)
                return None
            lease = {
                "worker": str(worker), "lease_until": now + LEASE_SECONDS, "state": "running", "progress": None,
                "reason": None, "target": work.last_step,
            }
            steps = (work.first_step, work.last_step)
            if work.number is None:
                number = len(history)
                connection.execute(
                    sa.insert(configurations).values(
                        study_id=study.id, number=number, origin="sampled", token=1, **lease
                    )
                )
                return Claim(self.study, number, 1, str(worker), None, None, *steps, history)
            mine = history[work.number]
            token = self._bump(connection, study.id, mine.number, lease)
            others = tuple(one for one in history if one.number != mine.number)
            return Claim(self.study, mine.number, token, str(worker), mine.drawn, mine.params, *steps, others)

    def _end(
        self, connection: sa.Connection, study_id: int, history: Sequence[Configuration], rule: ladder.Rule
    ) -> None:
        for one in history:
            if one.state == "paused":
                connection.execute(
                    sa.update(configurations)
                    .where(configurations.c.study_id == study_id, configurations.c.number == one.number)
                    .values(**self._released("pruned", ladder.lost(rule, one)))
                )

    def _bump(self, connection: sa.Connection, study_id: int, number: int, lease: Mapping[str, Any]) -> int:
        here = (configurations.c.study_id == study_id) & (configurations.c.number == number)
        connection.execute(
            sa.update(configurations)
            .where(here)
            .values(token=configurations.c.token + 1, revision=configurations.c.revision + 1, **lease)
        )
        return int(connection.execute(sa.select(configurations.c.token).where(here)).scalar_one())

    def _guarded(self, connection: sa.Connection, claim: Claim, **values: Any) -> bool:
        """Update the claimed row if its token is still ours: the fence against a worker that lost its lease."""
        study = study_row(connection, self.study, lock=True)
        changed = connection.execute(
            sa.update(configurations)
            .where(
                configurations.c.study_id == study.id,
                configurations.c.number == claim.number,
                configurations.c.token == claim.token,
                configurations.c.state == "running",
            )
            .values(**values)
        )
        return changed.rowcount == 1

    def set_params(self, claim: Claim, drawn: Mapping[str, Any], params: Mapping[str, Any], origin: str) -> bool:
        """Record what was sampled, before anything is trained with it. False: the claim is lost."""
        with self.storage.write() as connection:
            return self._guarded(
                connection,
                claim,
                drawn=dict(drawn),
                params=dict(params),
                origin=origin,
                revision=configurations.c.revision + 1,
            )

    def renew(self, claim: Claim, progress: Mapping[str, Any]) -> tuple[bool, bool]:
        """(the claim is still ours, the study is asked to stop). Progress is what `status` shows of a running one."""
        with self.storage.write() as connection:
            until = clock(connection) + LEASE_SECONDS
            ours = self._guarded(connection, claim, lease_until=until, progress=dict(progress))
            return ours, bool(study_row(connection, self.study).stopping)

    def commit(self, claim: Claim, value: float, metrics: Mapping[str, Any], rule: ladder.Rule) -> str | None:
        """Record a segment's result and what becomes of its configuration. None: the claim was lost, nothing written.

        Result, verdict and release are one transaction, so a kill leaves either all of them or none.
        """
        with self.storage.write() as connection:
            study = study_row(connection, self.study, lock=True)
            state, reason = ladder.settle(
                EVERY[rule.strategy], rule, read_history(connection, study.id), study.trials, claim, value, metrics
            )
            if not self._guarded(connection, claim, **self._released(state, reason), steps=claim.last_step, crashes=0):
                return None
            row_id = connection.execute(
                sa.select(configurations.c.id).where(
                    configurations.c.study_id == study.id, configurations.c.number == claim.number
                )
            ).scalar_one()
            connection.execute(
                sa.insert(segments).values(
                    configuration_id=row_id,
                    first_step=claim.first_step,
                    step=claim.last_step,
                    value=value,
                    metrics=dict(metrics),
                    worker=claim.worker,
                    token=claim.token,
                    committed=clock(connection),
                )
            )
            return state

    def fail(self, claim: Claim, failure: str, reason: str) -> bool:
        """End the configuration as failed. `failure` is its class: diverged, oom, crashed."""
        with self.storage.write() as connection:
            return self._guarded(connection, claim, **self._released("failed", reason), failure=failure)

    def crashed(self, claim: Claim, reason: str) -> bool:
        """The child died: give the segment back to be tried again, CRASHES_ALLOWED times. True: it ended as failed."""
        with self.storage.write() as connection:
            study = study_row(connection, self.study, lock=True)
            crashes = connection.execute(
                sa.select(configurations.c.crashes).where(
                    configurations.c.study_id == study.id, configurations.c.number == claim.number
                )
            ).scalar_one()
            if crashes < CRASHES_ALLOWED:
                self._guarded(connection, claim, **self._released("paused", reason), crashes=crashes + 1)
                return False
            return self._guarded(connection, claim, **self._released("failed", reason), failure="crashed")

    def release(self, claim: Claim, reason: str | None = None) -> bool:
        """Give the segment back; it goes on from its last checkpoint, here or elsewhere."""
        with self.storage.write() as connection:
            return self._guarded(connection, claim, **self._released("paused", reason))

    @staticmethod
    def _released(state: str, reason: str | None) -> dict[str, Any]:
        return {
            "state": state,
            "reason": reason,
            "worker": None,
            "lease_until": None,
            "progress": None,
            "revision": configurations.c.revision + 1,
        }

    def open_work(self) -> int:
        """How many configurations are neither ended nor yet to be drawn: with no claim to be had, others run them."""
        return sum(1 for one in self.history() if one.state not in ENDED)

    def append(self, origin: str, drawn: Mapping[str, Any], params: Mapping[str, Any]) -> int:
        """Queue one configuration with these parameters and give its number."""
        with self.storage.write() as connection:
            study = study_row(connection, self.study, lock=True)
            number = len(read_history(connection, study.id))
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
        """Queue failed configurations again; they go on from their last rung. Gives the ones that had failed."""
        with self.storage.write() as connection:
            study = study_row(connection, self.study, lock=True)
            failed = [
                one.number
                for one in read_history(connection, study.id)
                if one.state == "failed" and one.number in numbers
            ]
            connection.execute(
                sa.update(configurations)
                .where(configurations.c.study_id == study.id, configurations.c.number.in_(failed))
                .values(**self._released("queued", None), failure=None, crashes=0)
            )
            return failed
