"""A URL -> the database engine and the Optuna storage in it, with the settings that they need."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import event

from search import platforms
from search.errors import RunError, StorageUnavailableError, UserError, first_line
from search.paths import DEFAULT_URL
from search.storage import postgres
from search.storage.postgres import READS, Patience
from search.storage.sqlite_file import SqliteFile
from search.storage.storage_url import parse, shown, without_secrets

if TYPE_CHECKING:
    from optuna.storages import RDBStorage

# A writer holds SQLite's one lock for milliseconds; a minute covers dozens of workers on a slow disk.
BUSY_SECONDS = 60.0
MAKING_SECONDS = 120.0  # for other processes to make their tables
_MAKING_LOCK = 0x746D7366  # any constant, another one than schema.py's
# What a database without our tables, and a server without our database, answer.
_GONE = re.compile(r"no such table|(relation|database) \"[^\"]*\" does not exist")
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


def _lock_at_begin(engine: sa.Engine, is_read_only: bool) -> None:
    """Make every transaction take SQLite's write lock at its start unless it is marked as reading only.

    A deferred transaction that reads, then writes, can neither wait nor continue if another writer came between:
    that is how stock SQLite storage hands one queued trial to two workers (with 8 workers and 200 queued trials, 29
    to 45 of them run twice; with this, none).
    """

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver's own BEGIN would come too late and deferred
        connection.execute(f"PRAGMA busy_timeout={int(BUSY_SECONDS * 1000)}")
        if not is_read_only:
            connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        reads = is_read_only or connection.get_execution_options().get(READS, False)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


@contextmanager
def _locked_folder(folder: Path) -> Iterator[None]:
    """Keep other processes out of the block; SQLite's own locks are others, and the folder is left as it is."""
    descriptor = platforms.open_to_lock(folder)
    deadline = time.monotonic() + MAKING_SECONDS
    try:
        while True:
            try:
                platforms.lock(descriptor)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StorageUnavailableError(f"{folder}: another program holds its lock") from None
                time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)  # and with it the lock


def _can_write(file: Path) -> bool:
    """Whether this process may write a SQLite file, and the log beside it."""
    if not file.exists():
        return True  # whoever makes it is told by SQLite
    if not os.access(file, os.W_OK):
        return False
    beside = [file.with_name(file.name + ending) for ending in ("-wal", "-shm")]
    return os.access(file.parent, os.W_OK) or all(os.access(path, os.W_OK) for path in beside)


def _connect_reading(file: Path) -> sqlite3.Connection:
    """A connection to a SQLite file that cannot be written, nor the folder around it.

    SQLite needs files beside a database in WAL mode even to read it. Where they are missing there is no writer: it can
    be read as it is, unless a writer was killed and left its log.
    """
    log = file.with_name(f"{file.name}-wal")
    has_log = log.exists() and log.stat().st_size > 0
    has_index = file.with_name(f"{file.name}-shm").exists()
    if has_log and not has_index:
        with tempfile.TemporaryDirectory(prefix="tmsearch-") as folder:
            shutil.copyfile(file, Path(folder, file.name))
            shutil.copyfile(log, Path(folder, log.name))
            source = sqlite3.connect(Path(folder, file.name))
            copy = sqlite3.connect(":memory:", check_same_thread=False)
            source.backup(copy)
            source.close()
        return copy
    mode = "mode=ro" if has_index else "immutable=1"
    return sqlite3.connect(
        f"{file.as_uri()}?{mode}", uri=True, timeout=BUSY_SECONDS, check_same_thread=False, isolation_level=None
    )


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
        """The URL for a process in any folder, with its secrets: for an environment, never a command line."""
        url = self.url.set(database=str(self.file)) if self.file else self.url
        return url.render_as_string(hide_password=False)

    @property
    def command_line_url(self) -> str:
        """The URL for `--storage` in any folder of this machine, without its secrets."""
        return without_secrets(self.url.set(database=str(self.file)) if self.file else self.url)

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
            if self.is_read_only:
                engine = sa.create_engine(self.url, **self._reading_arguments(self.file))
            else:
                self._refuse_network(self.file.parent)
                self._make_folder(self.file.parent)
                engine = sa.create_engine(self.url, connect_args={"timeout": BUSY_SECONDS})
            if not self.is_read_only:
                self._sqlite_file.watch(engine)
            _lock_at_begin(engine, self.is_read_only)
            return engine
        try:
            return postgres.create_engine(self.url, self._patience)
        except ModuleNotFoundError:
            raise UserError("--storage: PostgreSQL needs its driver: pip install 'tmsearch[postgres]'") from None

    def _reading_arguments(self, file: Path) -> dict[str, Any]:
        # A new connection for every look: a file that is read as it is shows no later change.
        return {"creator": lambda: _connect_reading(file), "poolclass": sa.NullPool}

    def _make_folder(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder}: the folder cannot be made: {error.strerror}") from None

    def _refuse_network(self, folder: Path) -> None:
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        filesystem = filesystem_type(existing)
        if filesystem in NETWORK_FILESYSTEMS:
            raise UserError(
                f"{self.display_name}: {existing} is on a network file system ({filesystem}), where SQLite's locks do "
                "not hold; name a file on a local disk, or postgresql://HOST/DATABASE"
            )

    @cached_property
    def _sqlite_file(self) -> SqliteFile:
        assert self.file is not None
        return SqliteFile(self.file, self.display_name)

    def check_file(self) -> None:
        """Raise RunError where the SQLite file in use was removed or replaced."""
        if self.is_sqlite:
            self._sqlite_file.check()

    def exists(self) -> bool:
        """Whether there is a database to read. Makes nothing."""
        return self.file is None or self.file.is_file()

    @cached_property
    def is_read_only(self) -> bool:
        """Whether this is a SQLite file that can be read and not written; studies in it can be looked at."""
        return self.file is not None and not _can_write(self.file)

    @cached_property
    def _patience(self) -> Patience:
        return Patience()

    @cached_property
    def beside(self) -> Storage:
        """The same database over a connection of its own; in SQLite this very one, which has several."""
        if self.is_sqlite:
            return self
        storage = Storage(self.url)
        storage.__dict__["_patience"] = self._patience
        return storage

    def close_beside(self) -> None:
        """Close the connection of a storage that is `beside` another one: 64 workers have one each to spare."""
        if not self.is_sqlite:
            self.engine.dispose()

    def hurry(self) -> None:
        """Wait for no server any more: a person wants to leave at once."""
        self._patience.hurry()

    @contextmanager
    def making_tables(self) -> Iterator[None]:
        """Keep every other process from making tables within the block: neither database has "create once"."""
        if self.file is not None:
            self._refuse_network(self.file.parent)
            self._make_folder(self.file.parent)
            with _locked_folder(self.file.parent):
                yield
            return
        engine = postgres.create_engine(self.url, self._patience)
        with _errors_in_one_line(self), engine.connect() as plain:
            connection = plain.execution_options(**{READS: True})  # a transaction that waits would be ended
            deadline = time.monotonic() + MAKING_SECONDS
            while not connection.execute(sa.select(sa.func.pg_try_advisory_lock(_MAKING_LOCK))).scalar():
                if time.monotonic() > deadline:
                    raise StorageUnavailableError(f"{self.display_name}: another program makes its tables and hangs")
                time.sleep(0.1)
            yield
        engine.dispose()

    def check_writable(self) -> None:
        """Raise UserError where a study can be neither made nor continued here, before work is put into it.

        Writes nothing.
        """
        if self.is_sqlite:
            self._sqlite_file.check_kind()
        self.refuse_read_only()
        folders = {self.folder} if self.file is None or self.file.exists() else {self.folder, self.file.parent}
        for folder in sorted(folders):
            existing = next(path for path in (folder, *folder.parents) if path.exists())
            if not existing.is_dir():
                raise UserError(f"{existing}: the folder cannot be made: it is a file; rename it")
            if not os.access(existing, os.W_OK | os.X_OK):
                raise UserError(f"{existing}: cannot be written; make it writable, or work in another folder")

    def refuse_read_only(self) -> None:
        """Raise UserError where the database is a file that cannot be written."""
        if self.is_read_only:
            raise UserError(f"{self.display_name}: is read-only; make file and folder writable, or use a copy of them")

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """One transaction that may write; committed at the end, rolled back on any exception.

        Raises:
            UserError: The database is read-only.
            StorageUnavailableError: The database does not answer.
        """
        self.refuse_read_only()
        with _errors_in_one_line(self), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A connection that blocks no writer; raises as `write` does.

        In SQLite its statements see one state of the database, in PostgreSQL each the one of its moment.
        """
        with _errors_in_one_line(self), self.engine.connect() as plain:
            connection = plain.execution_options(**{READS: True})
            with connection.begin():
                yield connection

    @cached_property
    def optuna(self) -> RDBStorage:
        """Optuna's storage in the same database, with the same locking."""
        from optuna.storages import RDBStorage

        url = self.url.render_as_string(hide_password=False)
        if self.file is not None:
            self.check_file()
            reading = self._reading_arguments(self.file) if self.is_read_only else None
            with _errors_in_one_line(self):
                storage = RDBStorage(url, engine_kwargs=reading or {"connect_args": {"timeout": BUSY_SECONDS}})
            if not self.is_read_only:
                self._sqlite_file.watch(storage.engine)
            _lock_at_begin(storage.engine, self.is_read_only)
            storage.engine.dispose()  # connections made before the listeners were there
            return storage
        # Optuna sends a query while it reads the answer to another.
        engine_kwargs = {**postgres.arguments(self.url, self._patience), "max_overflow": 2}
        with _errors_in_one_line(self):
            storage = RDBStorage(url, engine_kwargs=engine_kwargs)
        postgres.ping_idle(storage.engine)
        return storage

    def close_optuna(self) -> None:
        """Close Optuna's connections to a server; as for `close_beside`."""
        if not self.is_sqlite and "optuna" in self.__dict__:
            self.optuna.engine.dispose()


def insert_into(connection: sa.Connection, table: sa.Table) -> Any:
    """An insert in the database's own dialect, which can say what to do where the row is there.

    The other database's dialect is not imported: PostgreSQL's takes 30 ms.
    """
    dialect = import_module(f"sqlalchemy.dialects.{connection.dialect.name}")
    return dialect.insert(table)


@contextmanager
def _errors_in_one_line(storage: Storage) -> Iterator[None]:
    """Raise what a database answers as one line, without the URL's password."""
    try:
        yield
    except (sa.exc.OperationalError, sa.exc.InternalError, sa.exc.InterfaceError) as error:
        cause = first_line(error.orig) if error.orig else "no answer"
        if _GONE.search(cause):  # waiting does not bring it back
            raise RunError(f"{storage.display_name}: the database is not there, or was removed: {cause}") from None
        raise StorageUnavailableError(f"{storage.display_name}: the database cannot be used: {cause}") from None
    except sa.exc.TimeoutError:
        cause = "no connection became free"
        raise StorageUnavailableError(f"{storage.display_name}: the database cannot be used: {cause}") from None
    except sa.exc.DatabaseError as error:
        if "not a database" in str(error.orig):
            raise UserError(f"{storage.display_name}: the file is not a SQLite database; name another one") from None
        cause = first_line(error.orig) if error.orig else ""
        if _GONE.search(cause):
            raise RunError(f"{storage.display_name}: the database is not there, or was removed: {cause}") from None
        if "malformed" in cause:  # SQLITE_CORRUPT
            raise RunError(
                f"{storage.display_name}: the database is damaged: {cause}; put a copy in its place, or save what can "
                "be read: sqlite3 DAMAGED .recover | sqlite3 NEW"
            ) from None
        raise


def open_storage(url: str | None = None) -> Storage:
    """The storage at `url`, else at TMSEARCH_STORAGE, else at DEFAULT_URL. Touches no disk and no server."""
    return Storage(parse(url or os.environ.get("TMSEARCH_STORAGE") or DEFAULT_URL))
