"""Connections to PostgreSQL on which no wait is without end, and which take few round trips.

On a slow link a transaction costs what its round trips cost. So BEGIN travels with the first statement, and a statement
whose answer nobody reads (execution option DEFERRED) with the next one, or with COMMIT. What only reads (option READS)
needs no transaction: each statement sees the database as it is then, as in PostgreSQL's default isolation in any case.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterable
from functools import cache
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import event

if TYPE_CHECKING:
    from psycopg import ClientCursor, Connection

    _ClientCursor = ClientCursor[Any]
    _Connection = Connection[Any]
else:  # the driver is an extra: `_classes` adds its classes
    _ClientCursor = object
    _Connection = object

# Execution options of SQLAlchemy; SQLite, whose statements cost no round trip, executes what is deferred at once.
READS = "tmsearch_reads"  # of a connection: its transactions write nothing
DEFERRED = "tmsearch_deferred"  # of a statement: nobody reads its answer

# A server that is down is noticed within this time, so that a worker can continue its training meanwhile.
CONNECT_SECONDS = 10
# A connection that stays open and passes nothing for so long is given up: a proxy, a tunnel or a stuck server keeps
# it alive for TCP, and neither the server's time limits nor TCP's end the wait. Longer than `lock_timeout`.
SILENT_SECONDS = 30.0
PING_AFTER_SECONDS = 10.0  # a connection that was idle for longer is tried before it is used
HURRIED_SECONDS = 1.0  # the same, once a person wants to leave at once
# A worker that is stopped in the middle of a transaction (a debugger, a machine that sleeps) holds the study's lock:
# the server ends such a session, and the worker repeats its transaction.
_SETTINGS = "SET idle_in_transaction_session_timeout = '20s'; SET lock_timeout = '20s'; SET statement_timeout = '120s'"


class Patience:
    """How long a connection may be silent."""

    def __init__(self) -> None:
        self._is_hurried = False

    @property
    def seconds(self) -> float:
        """The longest silence, in seconds."""
        return HURRIED_SECONDS if self._is_hurried else SILENT_SECONDS

    def hurry(self) -> None:
        """Give up soon, also what waits now: a person wants to leave at once."""
        self._is_hurried = True


def arguments(url: sa.URL, patience: Patience) -> dict[str, Any]:
    """Arguments of create_engine for PostgreSQL.

    One connection, since a worker does one thing at a time and 64 of them must stay under PostgreSQL's default of 100;
    a dead server or cable is noticed in half a minute.
    """
    words, parameters = url.get_dialect()().create_connect_args(url)
    limits = {
        "connect_timeout": CONNECT_SECONDS,
        "keepalives_idle": 15,  # seconds
        "keepalives_interval": 5,  # seconds
        "keepalives_count": 3,
        "tcp_user_timeout": 30_000,  # milliseconds
    }

    def connect() -> Any:
        seconds = max(2, min(CONNECT_SECONDS, int(patience.seconds)))  # libpq's shortest is 2
        values = {**limits, "connect_timeout": seconds, **parameters}
        connection_class, cursor_class = _classes()
        connection = connection_class.connect(*words, **values, autocommit=True, cursor_factory=cursor_class)
        connection.patience = patience
        connection.execute(_SETTINGS)  # one trip there and back
        connection.begins = True
        return connection

    # hstore's types cost a transaction at each start, and nobody uses them.
    return {"pool_size": 1, "max_overflow": 0, "creator": connect, "use_native_hstore": False}


def create_engine(url: sa.URL, patience: Patience) -> sa.Engine:
    """An engine whose connections know the execution options READS and DEFERRED."""
    engine = sa.create_engine(url, **arguments(url, patience))

    @event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        driver: Any = connection.connection.driver_connection
        driver.begins = not connection.get_execution_options().get(READS, False)

    @event.listens_for(engine, "before_cursor_execute")
    def _mark(_connection: Any, cursor: Any, _text: str, _parameters: Any, context: Any, _is_many: bool) -> None:
        cursor.is_deferred = context is not None and context.execution_options.get(DEFERRED, False)

    return engine


def ping_idle(engine: sa.Engine) -> None:
    """Have the engine replace a connection that died while it was idle; one that is in use costs no round trip."""

    @event.listens_for(engine, "checkin")
    def _note(_connection: Any, record: Any) -> None:
        record.info["idle_since"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def _ping(connection: Any, record: Any, _proxy: Any) -> None:
        # A connection that was returned before this function was called counts as old.
        if time.monotonic() - record.info.get("idle_since", -math.inf) < PING_AFTER_SECONDS:
            return
        try:
            connection.execute("SELECT 1")
            connection.rollback()
        except engine.dialect.loaded_dbapi.Error:
            raise sa.exc.DisconnectionError from None  # the pool takes a new one


class _BatchingCursor(_ClientCursor):
    """Binds values itself, so that several statements can be one message."""

    is_deferred = False  # whether nobody reads the next statement's answer

    def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
        connection: Any = self.connection
        statement = self.mogrify(query, params)
        if self.is_deferred:
            connection.defer(statement)
            return self
        waiting = connection.take_waiting()
        self.send([*waiting, statement])
        for _ in waiting:
            self.nextset()  # the last answer is the one that was asked for
        return self

    def executemany(self, query: Any, params_seq: Iterable[Any], **options: Any) -> None:
        connection: Any = self.connection
        if self.is_deferred:
            for params in params_seq:
                connection.defer(self.mogrify(query, params))
            return
        waiting = connection.take_waiting()
        if waiting:
            self.send(waiting)
        super().executemany(query, params_seq, **options)

    def send(self, statements: Iterable[str]) -> None:
        """Execute all of them in one round trip."""
        super().execute(";\n".join(statements).encode())


class _PatientConnection(_Connection):
    """Ends a wait that has lasted too long, and keeps statements whose answers nobody reads until another is sent."""

    patience: Patience | None = None
    begins = False  # whether a statement begins a transaction, unless one is open
    _waiting: tuple[str, ...] = ()  # statements that travel with the next one

    def defer(self, statement: str) -> None:
        self._waiting = (*self.take_waiting(), statement)

    def take_waiting(self) -> tuple[str, ...]:
        """What is to be sent before the next statement."""
        waiting = self._waiting
        self._waiting = ()
        is_idle = self.info.transaction_status == 0  # as libpq has it, on this side of the link
        return ("BEGIN",) if self.begins and is_idle and not waiting else waiting

    def commit(self) -> None:
        waiting = self._waiting
        self._waiting = ()
        if waiting:
            cursor: Any = self.cursor()
            cursor.send([*waiting, "COMMIT"])
        else:
            super().commit()

    def rollback(self) -> None:
        self._waiting = ()
        super().rollback()

    def wait(self, gen: Generator[Any, Any, Any], *args: Any, **kwargs: Any) -> Any:
        if self.patience is None:
            return super().wait(gen, *args, **kwargs)
        return super().wait(self._until_silent(gen, self.patience), *args, **kwargs)

    def _until_silent(self, gen: Generator[Any, Any, Any], patience: Patience) -> Generator[Any, Any, Any]:
        """The same generator of waits, which psycopg resumes with 0 where a tenth of a second passed in vain."""
        from psycopg import OperationalError

        heard = time.monotonic()
        ready = None
        while True:
            try:
                wanted = gen.send(ready)
            except StopIteration as end:
                return end.value
            ready = yield wanted
            if ready:
                heard = time.monotonic()
            elif time.monotonic() - heard > patience.seconds:
                gen.close()
                self.pgconn.finish()  # nothing that follows waits once more
                raise OperationalError(f"no answer for {patience.seconds:.0f} s on an open connection")


@cache
def _classes() -> tuple[Any, Any]:
    """The classes of connections and cursors; made once psycopg is known to be there."""
    import psycopg

    connection_class = type("PatientConnection", (_PatientConnection, psycopg.Connection), {})
    return connection_class, type("BatchingCursor", (_BatchingCursor, psycopg.ClientCursor), {})
