"""Open, resume, summarise; the space's fingerprint; frozen records."""

from __future__ import annotations

import contextlib
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from search.errors import UserError
from search.paths import study_folder
from search.records import Configuration, StudyRecord, WorkerRecord
from search.schedulers.scheduler import leader
from search.space.budget import Budget
from search.space.search_space import Space
from search.storage import schema
from search.storage.database import Storage
from search.storage.ledger import Ledger
from search.storage.reader import clock, study_row
from search.storage.schema import facts, studies


@dataclass(frozen=True)
class Summary:
    """A study as `list` and `status` show it."""

    record: StudyRecord
    history: tuple[Configuration, ...]
    facts: Mapping[str, Any]
    workers: tuple[WorkerRecord, ...] = ()

    @property
    def best(self) -> Configuration | None:
        return leader(Budget.from_json(self.record.space["budget"], self.record.name).scheduler_config, self.history)

    @property
    def spent(self) -> float:
        """Seconds of training and evaluation, of all configurations."""
        return math.fsum(one.seconds for one in self.history)

    @property
    def saved(self) -> float:
        """Seconds that the configurations which were not trained in full would have taken, each at its own speed."""
        full = max(self.record.space["budget"]["rungs"])
        short = [one for one in self.history if one.ended and one.failure is None and 0 < one.steps < full]
        return math.fsum(one.seconds / one.steps * (full - one.steps) for one in short)

    @property
    def counts(self) -> dict[str, int]:
        """Configurations by state, in the order in which the states first occur."""
        found: dict[str, int] = {}
        for one in self.history:
            found[one.state] = found.get(one.state, 0) + 1
        return found


def names(storage: Storage) -> list[str]:
    """Every study of the storage, by name; none where there is no ledger yet."""
    if not schema.check(storage):
        return []
    with storage.read() as connection:
        return list(connection.execute(sa.select(studies.c.name).order_by(studies.c.name)).scalars())


def open_study(storage: Storage, name: str) -> Ledger:
    """The ledger of an existing study; raises UserError where there is none."""
    if not schema.check(storage):
        raise UserError(
            f"{name}: no such study: there is no storage at {storage.display_name}; `tmsearch run` makes it"
        )
    with storage.read() as connection:
        study_row(connection, name)
    return Ledger(storage, name)


def summarize(ledger: Ledger) -> Summary:
    return Summary(ledger.record(), ledger.history(), ledger.facts(), ledger.workers())


def create(storage: Storage, space: Space, *, seed: int, trials: int, version: str, known: Mapping[str, Any]) -> Ledger:
    """Make the study with what was found out about its data; raises UserError where the name is taken."""
    schema.create(storage)
    storage.optuna  # noqa: B018  # makes Optuna's tables now: two workers that begin at once would both make them
    with storage.write() as connection:
        if connection.execute(sa.select(studies.c.id).where(studies.c.name == space.study)).first():
            raise UserError(f"{space.study}: the study was made by another process just now; run the command again")
        inserted = connection.execute(
            sa.insert(studies).values(
                name=space.study,
                space=space.to_json(),
                fingerprint=space.fingerprint(),
                seed=seed,
                trials=trials,
                stopping=False,
                version=version,
                created=clock(connection),
            )
        )
        assert inserted.inserted_primary_key is not None
        for key, value in known.items():
            connection.execute(sa.insert(facts).values(study_id=inserted.inserted_primary_key[0], key=key, value=value))
    return Ledger(storage, space.study)


def delete(ledger: Ledger) -> None:
    """Remove the study from the ledger, from Optuna and from the disk; raises UserError while a worker is on it."""
    import optuna

    from search.dashboard.artifacts import ArtifactFolder

    running = [one.worker_name for one in ledger.history() if one.state == "running"]
    if running:
        raise UserError(f"{ledger.study}: {running[0]} works on it; `tmsearch stop {ledger.study}` first")
    storage = ledger.storage
    # The published view first, and before it the files that it names: killed after it, the study is still there and can
    # be deleted again.
    ArtifactFolder(storage, ledger.record()).clear()
    with contextlib.suppress(KeyError):
        optuna.delete_study(study_name=ledger.study, storage=storage.optuna)
    shutil.rmtree(study_folder(storage.folder, ledger.study), ignore_errors=True)
    with storage.write() as connection:
        row = study_row(connection, ledger.study, lock=True)
        connection.execute(sa.delete(schema.workers).where(schema.workers.c.study_id == row.id))
        connection.execute(sa.delete(facts).where(facts.c.study_id == row.id))
        owned = sa.select(schema.configurations.c.id).where(schema.configurations.c.study_id == row.id)
        connection.execute(sa.delete(schema.segments).where(schema.segments.c.configuration_id.in_(owned)))
        connection.execute(sa.delete(schema.configurations).where(schema.configurations.c.study_id == row.id))
        connection.execute(sa.delete(studies).where(studies.c.id == row.id))
