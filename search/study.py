"""Studies of a storage: list, open, create, summarize, delete."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from search.errors import RunError, UserError, typed_name
from search.imported import without_imported
from search.records import Configuration, StudyRecord, WorkerRecord, best_configuration
from search.space.search_space import Space
from search.storage import ownership, schema
from search.storage.database import Storage
from search.storage.ledger import Ledger
from search.storage.reader import clock, study_row
from search.storage.schema import configurations, segments, studies, workers


@dataclass(frozen=True)
class Summary:
    """A study as `list` and `status` show it."""

    record: StudyRecord
    history: tuple[Configuration, ...]
    facts: Mapping[str, Any]
    workers: tuple[WorkerRecord, ...] = ()

    @property
    def best(self) -> Configuration | None:
        """The leader (see `best_configuration`)."""
        return best_configuration(self.history)

    @property
    def spent(self) -> float:
        """Seconds of training and evaluation, of all configurations."""
        return math.fsum(configuration.seconds for configuration in self.history)

    @property
    def saved(self) -> float:
        """Seconds more that the pruned configurations would have taken in full, each at its own speed."""
        full = max(self.record.space["budget"]["rungs"])
        pruned = [
            configuration
            for configuration in self.history
            if configuration.ended and configuration.failure is None and 0 < configuration.steps < full
        ]
        return math.fsum(trial.seconds_a_step * (full - trial.steps) for trial in pruned)

    @property
    def total(self) -> int:
        """How many configurations the study is to have, never fewer than it has; imported ones do not count."""
        return max(self.record.trials, len(without_imported(self.history)))

    @property
    def judged(self) -> int:
        """How many of the study's own configurations have a result: one that waits, or failed before it, has none."""
        return sum(bool(trial.rungs) for trial in without_imported(self.history))

    @property
    def has_ended(self) -> bool:
        """Whether nothing is left to do in the study: what was trained elsewhere does not count."""
        trials = without_imported(self.history)
        return bool(trials) and len(trials) >= self.record.trials and all(trial.ended for trial in trials)

    @property
    def counts(self) -> dict[str, int]:
        """The study's own configurations by state, in the order in which the states first occur."""
        counts: dict[str, int] = {}
        for configuration in without_imported(self.history):
            counts[configuration.state] = counts.get(configuration.state, 0) + 1
        return counts


def names(storage: Storage) -> list[str]:
    """The names of all studies in the storage; none if there is no ledger yet."""
    if not schema.check(storage):
        return []
    with storage.read() as connection:
        return list(connection.execute(sa.select(studies.c.name).order_by(studies.c.name)).scalars())


def open_study(storage: Storage, name: str) -> Ledger:
    """The ledger of an existing study; raises UserError if there is none."""
    if not schema.check(storage):
        raise UserError(
            f"{typed_name(name)}: no such study: there is no storage at {storage.display_name}; `tmsearch run` makes it"
        )
    with storage.read() as connection:
        study_row(connection, name)
    return Ledger(storage, name)


def summarize(ledger: Ledger) -> Summary:
    """Read all records of a study; raises UserError if this version cannot run it."""
    record = ledger.record()
    Space.from_json(dict(record.space))
    return Summary(record, ledger.history(), ledger.facts(), ledger.workers())


def check_unused(storage: Storage, name: str) -> None:
    """Raise UserError where a new study of this name would take over files, or an Optuna study, that are not its own.

    Writes nothing.
    """
    try:
        ownership.check_unused(storage, name)
        if storage.exists():
            _check_optuna(storage, name)
    except UserError:
        if name not in names(storage):  # else another process made it just now
            raise


def _check_optuna(storage: Storage, name: str) -> None:
    """Raise UserError where the storage has an Optuna study of this name; reads its table without importing Optuna."""
    with storage.read() as connection:
        inspector = sa.inspect(connection)
        if not inspector.has_table("studies"):
            return
        if "study_name" not in {column["name"] for column in inspector.get_columns("studies")}:
            return
        query = sa.text("SELECT 1 FROM studies WHERE study_name = :name")
        if connection.execute(query, {"name": name}).first() is None:
            return
    raise UserError(
        f"{name}: {storage.display_name} has an Optuna study of this name that tmsearch did not make; choose another "
        "name with --study NEW"
    )


def create(storage: Storage, space: Space, *, seed: int, trials: int, version: str, facts: Mapping[str, Any]) -> Ledger:
    """Make the study.

    Args:
        trials: The total number of configurations.
        version: Of the code that makes it.
        facts: What was found out about its data, by key.

    Raises:
        UserError: Another process made a study of this name meanwhile, or `check_unused` refuses it.
    """
    check_unused(storage, space.study)
    schema.create(storage)
    storage.optuna  # noqa: B018  # makes Optuna's tables now: two workers that start at once would both make them
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
        study_id = inserted.inserted_primary_key[0]
        for key, value in facts.items():
            connection.execute(sa.insert(schema.facts).values(study_id=study_id, key=key, value=value))
    return Ledger(storage, space.study)


def check_deletable(ledger: Ledger) -> None:
    """Raise UserError where a worker runs the study, or its rows or files cannot be removed; removes nothing."""
    from search.dashboard.artifacts import ArtifactFolder
    from search.dashboard.published_study import is_own

    ledger.storage.refuse_read_only()
    workers_alive = [worker.display_name for worker in ledger.workers() if worker.alive]
    running = [trial.worker_name for trial in ledger.history() if trial.state == "running"] + workers_alive
    if running:
        raise UserError(f"{ledger.study}: {running[0]} works on it; `tmsearch stop {ledger.study}` first")
    if ownership.foreign(ledger):  # those files are left
        return
    ownership.check_removable(ledger)
    uploads = is_own(ledger.storage, ledger.study)
    locked = ArtifactFolder(ledger.storage, ledger.record()).locked_folder(uploads=uploads)
    if locked is not None:
        raise UserError(f"{ledger.study}: nothing was deleted: {locked} cannot be written; make it writable")


def delete(ledger: Ledger) -> list[str]:
    """Remove the study from the ledger, from Optuna and from the disk; returns remarks for a person.

    Raises:
        UserError: As `check_deletable`.
        RunError: Its files could not be removed; the study is still there.
    """
    from search.dashboard.artifacts import ArtifactFolder
    from search.dashboard.published_study import delete_published, is_own

    check_deletable(ledger)
    # First the files, also those that the published study names, then that study: killed after it, the ledger still
    # has the study, which can be deleted again.
    foreign = ownership.foreign(ledger)
    if foreign:  # of a copy of this database: its artifacts have the same names, too
        remarks = [f"its files were left: {foreign}"]
    else:
        remarks = ownership.remove_files(ledger)
        uploads = is_own(ledger.storage, ledger.study)
        problems = ArtifactFolder(ledger.storage, ledger.record()).clear(uploads=uploads)
        if problems:
            raise RunError(f"{ledger.study}: not deleted, its artifacts could not be removed: {problems[0]}")
    remarks += delete_published(ledger.storage, ledger.study)
    with ledger.storage.write() as connection:
        row = study_row(connection, ledger.study, lock=True)
        connection.execute(sa.delete(workers).where(workers.c.study_id == row.id))
        connection.execute(sa.delete(schema.facts).where(schema.facts.c.study_id == row.id))
        configuration_ids = sa.select(configurations.c.id).where(configurations.c.study_id == row.id)
        connection.execute(sa.delete(segments).where(segments.c.configuration_id.in_(configuration_ids)))
        connection.execute(sa.delete(configurations).where(configurations.c.study_id == row.id))
        connection.execute(sa.delete(studies).where(studies.c.id == row.id))
    return remarks
