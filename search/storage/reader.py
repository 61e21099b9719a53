"""Reading the ledger: rows to frozen records, and the database's own clock."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from search.errors import UserError, typed_name
from search.process_id import ProcessId
from search.records import Configuration, Rung, State
from search.storage.postgres import DEFERRED
from search.storage.schema import configurations, segments, studies

# A supervisor renews every few seconds; a machine that swaps or a database that restarts gets a minute.
LEASE_SECONDS = 60.0
CLOCK_SLACK_SECONDS = 1.0  # a clock that is slewed moves less than this between two statements

# SQL of the database's clock and of its server's start, in seconds since 1970: workers' own clocks differ, leases must
# not.
_CLOCKS = {
    "sqlite": ("(julianday('now') - 2440587.5) * 86400.0", "0.0"),
    "postgresql": ("EXTRACT(EPOCH FROM clock_timestamp())", "EXTRACT(EPOCH FROM pg_postmaster_start_time())"),
}


def clock(connection: sa.Connection) -> float:
    """Seconds since 1970 by the database's clock."""
    return float(connection.execute(sa.select(clock_sql(connection))).scalar_one())


def clock_sql(connection: sa.Connection) -> sa.ColumnElement[float]:
    """The database's clock within a statement, in seconds since 1970."""
    return sa.literal_column(_CLOCKS[connection.dialect.name][0], sa.Float)


def study_row(connection: sa.Connection, name: str, *more: Any, lock: bool = False) -> sa.Row[Any]:
    """The study's row, with `now`, the database's clock, and `started`, when its server started.

    Args:
        more: Further columns.
        lock: Keep the row for this transaction (SQLite has one writer at a time anyway).

    Raises:
        UserError: There is no such study; the error names those that exist.
    """
    started = sa.literal_column(_CLOCKS[connection.dialect.name][1], sa.Float).label("started")
    query = sa.select(studies, clock_sql(connection).label("now"), started, *more).where(studies.c.name == name)
    row = connection.execute(query.with_for_update() if lock else query).first()
    if row is None:
        names = connection.execute(sa.select(studies.c.name).order_by(studies.c.name)).scalars().all()
        existing = ", ".join(names[:5]) or "none"
        if len(names) > 5:
            existing += " ..."
        raise UserError(f"{typed_name(name)}: no such study in this storage; there is: {existing}")
    return row


def is_current(until: float | None, now: float) -> bool:
    """Whether a lease or a sign of life that lasts until then, by the database's clock, is one of now.

    One that ends later than any that is given now is from before the clock was stepped back: a live worker renews it
    within seconds, and that of a dead one must not last for hours.
    """
    return until is not None and now < until <= now + LEASE_SECONDS + CLOCK_SLACK_SECONDS


def _expiry(study: sa.Row[Any]) -> float:
    """Leases that end before this time, by the database's clock, have expired.

    Nobody can renew a lease while a server is down: after its start every worker gets a lease's time to do so, before
    others take its work over. A start in the future is one before the clock was stepped back.
    """
    now = float(study.now)
    started = float(study.started)
    return started - LEASE_SECONDS if 0 <= now - started <= LEASE_SECONDS else now


def _is_held(row: Any, expiry: float) -> bool:
    """Whether a live worker has the configuration: its lease runs and it is not known to be dead."""
    if row.state != "running" or (row.lease_until or 0.0) <= expiry:
        return False
    process = ProcessId.parse(row.worker or "")
    return process is None or not process.known_dead()


def limit_leases(connection: sa.Connection, study: sa.Row[Any]) -> None:
    """Shorten leases that were given before the clock was stepped back to a lease's time from now.

    A live worker renews its own in that time; a dead one's would last as long as the step was.
    """
    latest = float(study.now) + LEASE_SECONDS
    connection.execute(
        sa.update(configurations)
        .where(
            configurations.c.study_id == study.id,
            configurations.c.state == "running",
            configurations.c.lease_until > latest + CLOCK_SLACK_SECONDS,
        )
        .values(lease_until=latest),
        execution_options={DEFERRED: True},
    )


# What changes without a new revision, and tells which rows have a new one.
_LIGHT_COLUMNS = sa.select(
    configurations.c.number,
    configurations.c.revision,
    configurations.c.state,
    configurations.c.worker,
    configurations.c.lease_until,
    configurations.c.progress,
    configurations.c.published,
).order_by(configurations.c.number)


# Where the errors by clip begin in the JSON of a result's metrics, as json.dumps writes it.
_ERRORS = '"errors": ['


class StoredMetrics(Mapping[str, Any]):
    """The metrics of a committed result: text until they are asked for, and the errors by clip for longer.

    A study of thousands of results has millions of errors, and most commands read those of a few.
    """

    __slots__ = ("_errors", "_text", "_values")

    def __init__(self, text: str) -> None:
        self._text = text
        self._values: dict[str, Any] | None = None  # once they were asked for
        self._errors: str | None = None  # from then on, the counts as they stand between the brackets

    @property
    def _fields(self) -> dict[str, Any]:
        if self._values is None:
            self._parse()
        assert self._values is not None
        return self._values

    def _parse(self) -> None:
        """Read the text, without the errors where they are an array of the result's own."""
        text = self._text
        if not text:  # another thread asked just now
            return
        start = text.find(_ERRORS)
        end = text.find("]", start)
        first = start + len(_ERRORS)
        values = _parsed(f"{text[: first - 1]}null{text[end + 1 :]}") if start >= 0 else None
        if values is not None and values.get("errors", 0) is None:
            self._errors = text[first:end]
        else:  # there are none, or they are within something else
            values = json.loads(text)
        self._values = values
        self._text = ""

    def __getitem__(self, key: str) -> Any:
        value = self._fields[key]
        if key == "errors" and self._errors is not None:
            return json.loads(f"[{self._errors}]")
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, StoredMetrics):
            return self._fields == other._fields and self._errors == other._errors
        return super().__eq__(other)

    __hash__ = None  # type: ignore[assignment]  # as a dict has none

    def __repr__(self) -> str:
        return repr(dict(self))


def _parsed(text: str) -> dict[str, Any] | None:
    """A JSON object; None where the text is none."""
    try:
        values: dict[str, Any] = json.loads(text)
    except ValueError:
        return None
    return values


class HistoryReader:
    """Reads a study's configurations, and those with an unchanged revision only once.

    So a claim among hundreds of configurations reads a few numbers of each, and not all their curves and clips.
    """

    def __init__(self) -> None:
        self._study: tuple[int, float] | None = None
        self._cache: dict[int, Configuration] = {}

    @property
    def is_empty(self) -> bool:
        """Whether nothing was read yet, so that the first reading takes long."""
        return not self._cache

    def read(self, connection: sa.Connection, study: sa.Row[Any]) -> tuple[Configuration, ...]:
        """Every configuration of the study, by number, with its committed rungs.

        A running configuration whose worker died is returned as paused: it resumes from its last checkpoint.
        """
        if self._study != (study.id, study.created):
            self._study = (study.id, study.created)
            self._cache = {}
        rows = connection.execute(_LIGHT_COLUMNS.where(configurations.c.study_id == study.id)).all()
        cache = self._cache  # another thread, which publishes, may replace it meanwhile
        stale = [row.number for row in rows if row.number not in cache or cache[row.number].revision != row.revision]
        if stale:
            cache = {**cache, **_read_configurations(connection, study.id, stale)}
            self._cache = cache
        expiry = _expiry(study)
        return tuple(_refreshed(cache[row.number], row, expiry) for row in rows)


def _refreshed(configuration: Configuration, row: Any, expiry: float) -> Configuration:
    """The configuration with what may have changed since it was read."""
    state: State = row.state
    if state == "running" and not _is_held(row, expiry):
        state = "paused"
    unchanged = (
        state == configuration.state
        and row.worker == configuration.worker
        and row.published == configuration.published
        and not row.progress
    )
    if unchanged:  # nearly all of a long study
        return configuration
    return replace(configuration, state=state, worker=row.worker, progress=row.progress or {}, published=row.published)


def _read_configurations(connection: sa.Connection, study_id: int, numbers: Sequence[int]) -> dict[int, Configuration]:
    wanted = configurations.c.study_id == study_id
    if len(numbers) < 100:  # databases limit how many values one query takes
        wanted = wanted & configurations.c.number.in_(numbers)
    rungs: dict[int, list[Rung]] = {}
    results = (
        sa.select(
            configurations.c.number,
            segments.c.step,
            segments.c.value,
            sa.cast(segments.c.metrics, sa.Text).label("metrics"),
            segments.c.version,
            segments.c.worker,
        )
        .join(configurations, configurations.c.id == segments.c.configuration_id)
        .where(wanted)
    )
    rows = connection.execute(sa.select(configurations).where(wanted)).all()
    with _no_collection():
        for number, step, value, metrics, version, worker in connection.execute(results):
            rungs.setdefault(number, []).append(Rung(step, value, StoredMetrics(metrics), version, worker))
    for of_configuration in rungs.values():  # here, since a database sorts all of them with all their clips
        of_configuration.sort(key=lambda rung: rung.step)
    return {row.number: _configuration(row, rungs.get(row.number, [])) for row in rows}


@contextmanager
def _no_collection() -> Iterator[None]:
    """No collection of cyclic garbage meanwhile: it looks at all objects whenever a fourth as many are new."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _configuration(row: sa.Row[Any], rungs: Sequence[Rung]) -> Configuration:
    return Configuration(
        number=row.number,
        origin=row.origin,
        drawn=row.drawn,
        params=row.params,
        state=row.state,
        reason=row.reason,
        failure=row.failure,
        rungs=tuple(rungs),
        worker=row.worker,
        revision=row.revision,
        published=row.published,
        target=row.target,
        token=row.token,
    )
