"""A URL -> database engine and Optuna storage with the settings that they need."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import event

from search.errors import StorageUnavailableError, UserError
from search.storage import filesystems

if TYPE_CHECKING:
    from optuna.storages import RDBStorage

DEFAULT_URL = "sqlite:///studies/tmsearch.db"
# A writer holds SQLite's one lock for milliseconds; a minute covers dozens of workers on a slow disk.
BUSY_SECONDS = 60.0
# A server that is not there is noticed within this time, so that a worker can go on with its training meanwhile.
CONNECT_SECONDS = 10
# A worker that is stopped (a debugger, a machine that sleeps) in the middle of a transaction holds the study's lock:
# the server ends such a session, and the worker's next word is asked again.
_POSTGRES_SETTINGS = (
    "SET idle_in_transaction_session_timeout = '20s'",
    "SET lock_timeout = '60s'",
    "SET statement_timeout = '120s'",
)


def _parse(url: str) -> sa.URL:
    try:
        parsed = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):
        # The text is not repeated: it may hold a password.
        raise UserError("--storage: no database URL; write sqlite:///FILE.db or postgresql://HOST/DATABASE") from None
    backend = parsed.get_backend_name()
    if backend == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    if backend == "sqlite":
        if not parsed.database or parsed.database == ":memory:":
            raise UserError("--storage: a study outlives its process; name a file: sqlite:///FILE.db")
        return parsed
    raise UserError(f"--storage: {backend} is not supported; use sqlite:///FILE.db or postgresql://HOST/DATABASE")


def _immediate(engine: sa.Engine) -> None:
    """Make every transaction take SQLite's write lock at its start unless it says that it only reads.

    A deferred transaction that reads, then writes, can neither wait nor go on when another writer came between:
    that is how stock SQLite storage hands one queued trial to two workers (DESIGN.md, section 5).
    """

    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver's own BEGIN would come too late and deferred
        connection.execute(f"PRAGMA busy_timeout={int(BUSY_SECONDS * 1000)}")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def _begun(connection: sa.Connection) -> None:
        reads = connection.get_execution_options().get("tmsearch_reads", False)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def _postgres(url: sa.URL) -> dict[str, Any]:
    """Arguments of create_engine: one connection, since a worker does one thing at a time and 64 of them must stay
    under PostgreSQL's default of 100; a dead server or cable is noticed in half a minute."""
    alive = {"keepalives_idle": 15, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 30_000}
    given = {"connect_timeout": CONNECT_SECONDS, **alive}
    arguments = {name: value for name, value in given.items() if name not in url.query}
    return {"pool_size": 1, "max_overflow": 0, "connect_args": arguments}


def _bounded(engine: sa.Engine) -> None:
    """Give every session of PostgreSQL its time limits."""

    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _record: Any) -> None:
        with connection.cursor() as cursor:
            for setting in _POSTGRES_SETTINGS:
                cursor.execute(setting)
        connection.commit()


@dataclass(frozen=True)
class Storage:
    """One database that holds the ledger and the published Optuna studies."""

    url: sa.URL

    @property
    def is_sqlite(self) -> bool:
        return self.url.get_backend_name() == "sqlite"

    @property
    def file(self) -> Path | None:
        """The database file, absolute, where there is one."""
        return Path(self.url.database or "").resolve() if self.is_sqlite else None

    @property
    def display_name(self) -> str:
        """The URL as it may be printed: as a person writes it, without its password."""
        return self.url.set(drivername=self.url.get_backend_name()).render_as_string(hide_password=True)

    @cached_property
    def folder(self) -> Path:
        """Where the studies' folders are: TMSEARCH_STUDIES, else beside a SQLite file, else ./studies."""
        named = os.environ.get("TMSEARCH_STUDIES")
        if named:
            return Path(named).resolve()
        return self.file.parent if self.file else Path("studies").resolve()

    @cached_property
    def engine(self) -> sa.Engine:
        if self.is_sqlite:
            assert self.file is not None
            self._refuse_network(self.file.parent)
            try:
                self.file.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UserError(f"{self.file.parent}: the folder cannot be made: {error.strerror}") from None
            engine = sa.create_engine(self.url, connect_args={"timeout": BUSY_SECONDS})
            _immediate(engine)
            return engine
        try:
            engine = sa.create_engine(self.url, **_postgres(self.url))
        except ModuleNotFoundError:
            raise UserError("--storage: PostgreSQL needs its driver: pip install 'tmsearch[postgres]'") from None
        _bounded(engine)
        return engine

    def _refuse_network(self, folder: Path) -> None:
        there = next(one for one in (folder, *folder.parents) if one.exists())
        if filesystems.is_network(there):
            raise UserError(
                f"{self.display_name}: {there} is on a network file system ({filesystems.kind(there)}), where SQLite's locks "
                "do not hold; name a file on a local disk, or postgresql://HOST/DATABASE"
            )

    def exists(self) -> bool:
        """Whether there is a database to read. Makes nothing."""
        return self.file is None or self.file.is_file()

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """One transaction that may write; committed at the end, rolled back on any exception."""
        with _said(self), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """One transaction that sees one state of the database and keeps no writer waiting."""
        with _said(self), self.engine.connect() as plain:
            connection = plain.execution_options(tmsearch_reads=True)
            with connection.begin():
                yield connection

    @cached_property
    def optuna(self) -> RDBStorage:
        """Optuna's storage in the same database, with the same locking."""
        from optuna.storages import RDBStorage

        if not self.is_sqlite:
            # Optuna asks one question while it reads another's answer.
            engine_kwargs = {**_postgres(self.url), "max_overflow": 2, "pool_pre_ping": True}
            known = RDBStorage(self.url.render_as_string(hide_password=False), engine_kwargs=engine_kwargs)
            _bounded(known.engine)
            return known
        storage = RDBStorage(
            self.url.render_as_string(hide_password=False), engine_kwargs={"connect_args": {"timeout": BUSY_SECONDS}}
        )
        _immediate(storage.engine)
        storage.engine.dispose()  # connections made before the listeners were there
        return storage

    def close(self) -> None:
        """Close Optuna's connections to a server: 64 workers have one each for the ledger, and no more to spare."""
        if not self.is_sqlite and "optuna" in self.__dict__:
            self.optuna.engine.dispose()


@contextmanager
def _said(storage: Storage) -> Iterator[None]:
    """A database that fails is said in one line, without its password."""
    try:
        yield
    except (sa.exc.OperationalError, sa.exc.InternalError, sa.exc.InterfaceError) as error:
        cause = str(error.orig).strip().splitlines()[0] if error.orig else "no answer"
        raise StorageUnavailableError(f"{storage.display_name}: the database cannot be used: {cause}") from None
    except sa.exc.TimeoutError:
        raise StorageUnavailableError(
            f"{storage.display_name}: the database cannot be used: no connection became free"
        ) from None
    except sa.exc.DatabaseError as error:
        if "not a database" in str(error.orig):
            raise UserError(f"{storage.display_name}: the file is not a SQLite database; name another one") from None
        raise


def open_storage(url: str | None = None) -> Storage:
    """The storage at `url`, else at TMSEARCH_STORAGE, else at DEFAULT_URL. Touches no disk and no server."""
    return Storage(_parse(url or os.environ.get("TMSEARCH_STORAGE") or DEFAULT_URL))
