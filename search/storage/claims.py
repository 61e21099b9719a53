"""The truth: configurations, segments, results, claims, leases (SQLAlchemy)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from search.imported import without_imported
from search.process_id import ProcessId
from search.records import CRASHES_ALLOWED, Claim, Configuration
from search.schedulers import scheduler
from search.schedulers.asha import ALL_POLICIES
from search.storage.ledger import RELEASED, Register
from search.storage.reader import LEASE_SECONDS, HistoryReader, study_row
from search.storage.schema import configurations, segments


class Ledger(Register):
    """One study's tables. Every method is one transaction; none leaves anything half done.

    A transaction whose answer got lost may be asked again with `again`: what it did is then found and not repeated.
    """

    def claim(
        self,
        worker: ProcessId,
        scheduler_config: scheduler.SchedulerConfig,
        closing: bool = False,
        *,
        again: bool = False,
    ) -> Claim | None:
        """Take the next segment; None where there is none for now (see `open_work`).

        Where nothing is left to do, what rests has lost: the same transaction ends it. `closing`: see ladder.Study.
        `again`: this worker is at nothing, so what stands in its name is a claim that it never heard of.
        """
        with self.storage.write() as connection:
            study = study_row(connection, self.study, lock=True)
            if study.stopping:
                return None
            if again:
                self._give_back(connection, study.id, worker)
            # What this transaction changed must not be remembered: it may yet be rolled back.
            history = (HistoryReader() if again else self._history).read(connection, study)
            known = scheduler.SchedulerState(scheduler_config, without_imported(history), study.trials, closing)
            strategy = ALL_POLICIES[scheduler_config.strategy]
            work = scheduler.choose(strategy, known)
            if work is None:
                if not known.is_busy and not closing:
                    self._end(connection, study.id, history, scheduler_config)
                return None
            lease = {
                "worker": str(worker),
                "lease_until": float(study.now) + LEASE_SECONDS,
                "state": "running",
                "progress": None,
                "reason": None,
                "target": work.last_step,
            }
            seen = scheduler.history_for_draw(strategy, history, work.number)
            steps = (work.first_step, work.last_step)
            if work.number is None:
                number = len(history)
                connection.execute(
                    sa.insert(configurations).values(
                        study_id=study.id, number=number, origin="sampled", token=1, **lease
                    )
                )
                return Claim(self.study, number, 1, str(worker), None, None, *steps, seen)
            mine = history[work.number]
            token = self._bump(connection, study.id, mine.number, lease)
            return Claim(self.study, mine.number, token, str(worker), mine.drawn, mine.params, *steps, seen)

    def _give_back(self, connection: sa.Connection, study_id: int, worker: ProcessId) -> None:
        connection.execute(
            sa.update(configurations)
            .where(
                configurations.c.study_id == study_id,
                configurations.c.worker == str(worker),
                configurations.c.state == "running",
            )
            .values(**_released("paused", None))
        )

    def _end(
        self,
        connection: sa.Connection,
        study_id: int,
        history: Sequence[Configuration],
        scheduler_config: scheduler.SchedulerConfig,
    ) -> None:
        for one in history:
            if one.state == "paused":
                connection.execute(
                    sa.update(configurations)
                    .where(configurations.c.study_id == study_id, configurations.c.number == one.number)
                    .values(**_released("pruned", scheduler.pruning_reason(scheduler_config, one)))
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
        # The row's own lock is enough, so nobody's claim waits for this.
        changed = connection.execute(
            sa.update(configurations)
            .where(
                configurations.c.study_id == self._id,
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
            study = study_row(connection, self.study)
            until = float(study.now) + LEASE_SECONDS
            return self._guarded(connection, claim, lease_until=until, progress=dict(progress)), bool(study.stopping)

    def commit(
        self,
        claim: Claim,
        value: float,
        metrics: Mapping[str, Any],
        scheduler_config: scheduler.SchedulerConfig,
        *,
        version: str | None = None,
        again: bool = False,
    ) -> str | None:
        """Record a segment's result and what becomes of its configuration. None: the claim was lost, nothing written.

        Result, verdict and release are one transaction, so a kill leaves either all of them or none. `version` is
        that of the code which trained it.
        """
        with self.storage.write() as connection:
            study = study_row(connection, self.study, lock=True)
            if again and (state := self._committed(connection, study.id, claim)) is not None:
                return state
            state, reason = scheduler.decide(
                ALL_POLICIES[scheduler_config.strategy],
                scheduler_config,
                self._history.read(connection, study),
                study.trials,
                claim,
                value,
                metrics,
            )
            if not self._guarded(connection, claim, **_released(state, reason), steps=claim.last_step, crashes=0):
                return None
            here = (configurations.c.study_id == study.id) & (configurations.c.number == claim.number)
            connection.execute(
                sa.insert(segments).values(
                    configuration_id=connection.execute(sa.select(configurations.c.id).where(here)).scalar_one(),
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

    def _committed(self, connection: sa.Connection, study_id: int, claim: Claim) -> str | None:
        """What the configuration came to, where this very claim's result is recorded already."""
        state = connection.execute(
            sa.select(configurations.c.state)
            .join(segments, configurations.c.id == segments.c.configuration_id)
            .where(
                configurations.c.study_id == study_id,
                configurations.c.number == claim.number,
                segments.c.step == claim.last_step,
                segments.c.token == claim.token,
            )
        ).scalar()
        return "paused" if state == "running" else state

    def fail(self, claim: Claim, failure: str, reason: str) -> bool:
        """End the configuration as failed. `failure` is its class: diverged, oom, crashed."""
        with self.storage.write() as connection:
            return self._guarded(connection, claim, **_released("failed", reason), failure=failure)

    def crashed(self, claim: Claim, reason: str, allowed: int = CRASHES_ALLOWED) -> str | None:
        """The child died: give the segment back to be tried again, `allowed` times, then end it as failed.

        What became of the configuration: paused or failed; None: the claim was lost, nothing written.
        """
        with self.storage.write() as connection:
            study = study_row(connection, self.study, lock=True)
            crashes = connection.execute(
                sa.select(configurations.c.crashes).where(
                    configurations.c.study_id == study.id, configurations.c.number == claim.number
                )
            ).scalar_one()
            if crashes < allowed:
                values = {**_released("paused", reason), "crashes": crashes + 1}
            else:
                values = {**_released("failed", reason), "failure": "crashed"}
            return values["state"] if self._guarded(connection, claim, **values) else None

    def release(self, claim: Claim, reason: str | None = None) -> bool:
        """Give the segment back; it goes on from its last checkpoint, here or elsewhere."""
        with self.storage.write() as connection:
            return self._guarded(connection, claim, **_released("paused", reason))


def _released(state: str, reason: str | None) -> dict[str, Any]:
    return {**RELEASED, "state": state, "reason": reason}
