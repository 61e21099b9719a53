"""Connections to PostgreSQL on which no wait is without end, whatever the server or the network does."""

from __future__ import annotations

import time
from collections.abc import Generator
from functools import cache
from typing import Any

import sqlalchemy as sa

# A server that is down is noticed within this time, so that a worker can continue its training meanwhile.
CONNECT_SECONDS = 10
# A connection that stays open and passes nothing for so long is given up: a proxy, a tunnel or a stuck server keeps
# it alive for TCP, and neither the server's time limits nor TCP's end the wait. Longer than `lock_timeout`.
SILENT_SECONDS = 30.0
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
        connection = _connection_class().connect(*words, **values, autocommit=True)
        connection.patience = patience
        connection.execute(_SETTINGS)  # one trip there and back
        connection.autocommit = False
        return connection

    return {"pool_size": 1, "max_overflow": 0, "creator": connect}


@cache
def _connection_class() -> Any:
    """psycopg's connection, which ends a wait that has lasted too long; made once psycopg is known to be there."""
    import psycopg

    class PatientConnection(psycopg.Connection[Any]):
        patience: Patience | None = None

        def wait(self, gen: Generator[Any, Any, Any], *args: Any, **kwargs: Any) -> Any:
            if self.patience is None:
                return super().wait(gen, *args, **kwargs)
            return super().wait(self._until_silent(gen, self.patience), *args, **kwargs)

        def _until_silent(self, gen: Generator[Any, Any, Any], patience: Patience) -> Generator[Any, Any, Any]:
            """The same generator of waits, which psycopg resumes with 0 where a tenth of a second passed in vain."""
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
                    raise psycopg.OperationalError(f"no answer for {patience.seconds:.0f} s on an open connection")

    return PatientConnection
