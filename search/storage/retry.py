"""Asking a database that is gone for a while again, until it answers."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from search.errors import StorageUnavailableError

T = TypeVar("T")

# A server that is moved, updated or restarted is back within this time, seconds; what was trained waits for it.
STORAGE_PATIENCE = 1800.0
_PAUSES = (0.1, 0.3, 1.0, 3.0)  # and the last one from then on


class Retry:
    """One worker's way to the database. `stop` says that somebody wants it to leave."""

    def __init__(
        self, notice: Callable[[str], None], stop: Callable[[], bool], seconds: float = STORAGE_PATIENCE
    ) -> None:
        self._notice = notice
        self._stop = stop
        self._seconds = seconds
        self._said = False
        self._given_up = False

    def call(self, call: Callable[[bool], T]) -> T:
        """What `call` gives; its argument says whether it was called before, in which case its answer got lost.

        Raises StorageGone where the database stays away for too long, or somebody wants the worker to leave; after
        that whatever is asked is tried once.
        """
        began, tried = time.monotonic(), 0
        while True:
            try:
                answer = call(tried > 0)
            except StorageUnavailableError as gone:
                if self._given_up or self._stop() or time.monotonic() - began > self._seconds:
                    self._given_up = True
                    raise
                self.report_outage(gone, after=tried)
                time.sleep(_PAUSES[min(tried, len(_PAUSES) - 1)])
                tried += 1
            else:
                self.report_recovery()
                self._given_up = False
                return answer

    def report_outage(self, error: StorageUnavailableError, after: int = 1) -> None:
        """Say once that the database is away; not at the first try, since a conflict between two is no outage."""
        if not self._said and after:
            self._said = True
            self._notice(f"{error}; what is trained goes on, its results wait")

    def report_recovery(self) -> None:
        """Say once that it is there again."""
        if self._said:
            self._said = False
            self._notice("the database answers again")
