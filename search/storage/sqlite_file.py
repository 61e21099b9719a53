"""Whether the SQLite file that a program has open is still the one at its path."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

from search.errors import RunError, UserError


class SqliteFile:
    """Notices that the file was removed or replaced: SQLite itself would go on writing to a file without a name.

    Args:
        path: the file; it may not exist before the first transaction.
        shown: how a person reads it.
    """

    def __init__(self, path: Path, shown: str) -> None:
        self._path = path
        self._shown = shown
        self._inode: int | None = None  # of the file that the first transaction used

    def check_kind(self) -> None:
        """Raise UserError where the path is a folder or a device, of which SQLite says that only after its patience."""
        if os.path.isdir(self._path):
            raise UserError(f"{self._shown}: is a folder; give a file")
        if os.path.exists(self._path) and not os.path.isfile(self._path):
            raise UserError(f"{self._shown}: is not a plain file; give another one")

    def check(self) -> None:
        """Raise RunError where the file is not the one that the first transaction used."""
        if self._inode is not None and _inode(self._path) != self._inode:
            raise RunError(
                f"{self._shown}: the database was removed or replaced while this program used it; nothing more can be "
                "recorded in it"
            )

    def watch(self, engine: sa.Engine) -> None:
        """Check before every connection and every transaction of the engine."""
        log = self._path.with_name(f"{self._path.name}-wal")

        @event.listens_for(engine, "do_connect")
        def _before_connecting(*_: Any) -> None:
            self.check()

        @event.listens_for(engine, "begin")
        def _before_transaction(connection: sa.Connection) -> None:
            self.check()
            # SQLite keeps a write-ahead log as long as a connection is open.
            known_log = connection.info.get("wal")
            current_log = _inode(log)
            if known_log is not None and current_log != known_log:
                raise RunError(f"{self._shown}: its file {log.name} was removed or replaced while this program used it")
            connection.info["wal"] = current_log
            if self._inode is None:
                self._inode = _inode(self._path)


def _inode(path: Path) -> int | None:
    try:
        return os.stat(path).st_ino
    except OSError:
        return None
