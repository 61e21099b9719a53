"""A URL -> the database engine and the Optuna storage in it, with the settings that they need."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import event

from search.errors import StorageUnavailableError, UserError, first_line
from search.paths import DEFAULT_URL
from search.storage.storage_url import parse, shown

if TYPE_CHECKING:
    from optuna.storages import RDBStorage

# A writer holds SQLite's one lock for milliseconds; a minute covers dozens of workers on a slow disk.
BUSY_SECONDS = 60.0
# A server that is down is noticed within this time, so that a worker can continue its training meanwhile.
CONNECT_SECONDS = 10
# A worker that is stopped in the middle of a transaction (a debugger, a machine that sleeps) holds the study's lock:
# the server ends such a session, and the worker repeats its transaction.
_POSTGRES_SETTINGS = (
    "SET idle_in_transaction_session_timeout = '20s'",
    "SET lock_timeout = '60s'",
    "SET statement_timeout = '120s'",
)
# File systems of other machines, as Linux names them. SQLite's locks need every process to see them at once:
# https://www.sqlite.org/faq.html#q5 and https://www.sqlite.org/wal.html ("all processes must be on the same host").
NETWORK_FILESYSTEMS = (
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "lustre", "gpfs", "beegfs", "glusterfs", "pvfs2", "orangefs",
    "fuse.sshfs", "fuse.glusterfs", "fuse.s3fs", "fuse.gcsfuse", "fuse.goofys", "fuse.rclone", "fuse.ceph-fuse",
    "fuse.juicefs", "fuse.weka", "wekafs", "fuse.mfs",
)  # fmt: skip


def filesystem_type(path: Path, mounts: str = "/proc/self/mounts") -> str | None:
    """The type of the file system that holds `path`, such as ext4 or nfs4; None if the system does not tell."""
    try:
        lines = Path(mounts).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    path = path.resolve()
    deepest = -1
    filesystem = None
    for line in lines:
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        mount_point = Path(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[1]))
        # A later mount at the same point hides the earlier one.
        if path.is_relative_to(mount_point) and len(mount_point.parts) >= deepest:
            deepest = len(mount_point.parts)
            filesystem = fields[2]
    return filesystem


def _lock_at_begin(engine: sa.Engine) -> None:
    """Make every transaction take SQLite's write lock at its start unless it is marked as reading only.

    A deferred transaction that reads, then writes, can neither wait nor continue if another writer came between:
    that is how stock SQLite storage hands one queued trial to two workers (with 8 workers and 200 queued trials, 29
    to 45 of them run twice; with this, none).
    """

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver's own BEGIN would come too late and deferred
        connection.execute(f"PRAGMA busy_timeout={int(BUSY_SECONDS * 1000)}")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        reads = connection.get_execution_options().get("tmsearch_reads", False)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def _limit_sessions(engine: sa.Engine) -> None:
    """Give every session of PostgreSQL its time limits."""

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        with connection.cursor() as cursor:
            for setting in _POSTGRES_SETTINGS:
                cursor.execute(setting)
        connection.commit()


def _postgres_arguments(url: sa.URL) -> dict[str, Any]:
    """Arguments of create_engine for PostgreSQL.

    One connection, since a worker does one thing at a time and 64 of them must stay under PostgreSQL's default of 100;
    a dead server or cable is noticed in half a minute.
    """
    connect = {
        "connect_timeout": CONNECT_SECONDS,
        "keepalives_idle": 15,  # seconds
        "keepalives_interval": 5,  # seconds
        "keepalives_count": 3,
        "tcp_user_timeout": 30_000,  # milliseconds
    }
    for name in url.query:
        connect.pop(name, None)
    return {"pool_size": 1, "max_overflow": 0, "connect_args": connect}


@dataclass(frozen=True)
class Storage:
    """One database that holds the ledger and the published Optuna studies."""

    url: sa.URL

    @property
    def is_sqlite(self) -> bool:
        """Whether this is a SQLite file, else a PostgreSQL server."""
        return self.url.get_backend_name() == "sqlite"

    @property
    def file(self) -> Path | None:
        """The SQLite file, absolute; None for a server."""
        return Path(self.url.database or "").resolve() if self.is_sqlite else None

    @property
    def display_name(self) -> str:
        """The URL as it may be printed: as a person writes it, without its secrets."""
        return shown(self.url)

    @property
    def whole_url(self) -> str:
        """The URL for a process of ours in any folder, with its secrets: for the environment, not for a command line."""
        url = self.url.set(database=str(self.file)) if self.file else self.url
        return url.render_as_string(hide_password=False)

    @cached_property
    def folder(self) -> Path:
        """Where the studies' folders are: TMSEARCH_STUDIES, else beside a SQLite file, else ./studies."""
        studies = os.environ.get("TMSEARCH_STUDIES")
        if studies:
            return Path(studies).resolve()
        return self.file.parent if self.file else Path("studies").resolve()

    @cached_property
    def engine(self) -> sa.Engine:
        """The database engine of the ledger; makes the folder of a SQLite file."""
        if self.is_sqlite:
            assert self.file is not None
            self._refuse_network(self.file.parent)
            try:
                self.file.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UserError(f"{self.file.parent}: the folder cannot be made: {error.strerror}") from None
            engine = sa.create_engine(self.url, connect_args={"timeout": BUSY_SECONDS})
            _lock_at_begin(engine)
            return engine
        try:
            engine = sa.create_engine(self.url, **_postgres_arguments(self.url))
        except ModuleNotFoundError:
            raise UserError("--storage: PostgreSQL needs its driver: pip install 'tmsearch[postgres]'") from None
        _limit_sessions(engine)
        return engine

    def _refuse_network(self, folder: Path) -> None:
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        filesystem = filesystem_type(existing)
        if filesystem in NETWORK_FILESYSTEMS:
            raise UserError(
                f"{self.display_name}: {existing} is on a network file system ({filesystem}), where SQLite's locks do "
                "not hold; name a file on a local disk, or postgresql://HOST/DATABASE"
            )

    def exists(self) -> bool:
        """Whether there is a database to read. Makes nothing."""
        return self.file is None or self.file.is_file()

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """One transaction that may write; committed at the end, rolled back on any exception.

        Raises:
            StorageUnavailableError: The database does not answer.
        """
        with _errors_in_one_line(self), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """One transaction that sees one state of the database and blocks no writer; raises as `write` does."""
        with _errors_in_one_line(self), self.engine.connect() as plain:
            connection = plain.execution_options(tmsearch_reads=True)
            with connection.begin():
                yield connection

    @cached_property
    def optuna(self) -> RDBStorage:
        """Optuna's storage in the same database, with the same locking."""
        from optuna.storages import RDBStorage

        url = self.url.render_as_string(hide_password=False)
        if self.is_sqlite:
            storage = RDBStorage(url, engine_kwargs={"connect_args": {"timeout": BUSY_SECONDS}})
            _lock_at_begin(storage.engine)
            storage.engine.dispose()  # connections made before the listeners were there
            return storage
        # Optuna sends a query while it reads the answer to another.
        engine_kwargs = {**_postgres_arguments(self.url), "max_overflow": 2, "pool_pre_ping": True}
        storage = RDBStorage(url, engine_kwargs=engine_kwargs)
        _limit_sessions(storage.engine)
        return storage

    def close_optuna(self) -> None:
        """Close Optuna's connections to a server: 64 workers have one each for the ledger, and no more to spare."""
        if not self.is_sqlite and "optuna" in self.__dict__:
            self.optuna.engine.dispose()


@contextmanager
def _errors_in_one_line(storage: Storage) -> Iterator[None]:
    """Raise what a database answers as one line, without the URL's password."""
    try:
        yield
    except (sa.exc.OperationalError, sa.exc.InternalError, sa.exc.InterfaceError) as error:
        cause = first_line(error.orig) if error.orig else "no answer"
        raise StorageUnavailableError(f"{storage.display_name}: the database cannot be used: {cause}") from None
    except sa.exc.TimeoutError:
        cause = "no connection became free"
        raise StorageUnavailableError(f"{storage.display_name}: the database cannot be used: {cause}") from None
    except sa.exc.DatabaseError as error:
        if "not a database" in str(error.orig):
            raise UserError(f"{storage.display_name}: the file is not a SQLite database; name another one") from None
        raise


def open_storage(url: str | None = None) -> Storage:
    """The storage at `url`, else at TMSEARCH_STORAGE, else at DEFAULT_URL. Touches no disk and no server."""
    return Storage(parse(url or os.environ.get("TMSEARCH_STORAGE") or DEFAULT_URL))
