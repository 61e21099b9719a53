"""Publishes to Optuna beside the training, so that no segment waits for it."""

from __future__ import annotations

import threading

import optuna

from search.dashboard.publisher import Publisher
from search.errors import StorageUnavailableError
from search.storage.retry import Retry

# What another worker was publishing, or the database could not take, is tried again after so many seconds.
AGAIN_SECONDS = 5.0


class BackgroundPublisher:
    """One thread of a worker. `wake` says that something changed; `close` publishes what is left."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._due = threading.Event()
        self._closing = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="herald", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Something changed. Raises what publishing raised, if that was no database that is away."""
        if self._error is not None:
            raise self._error
        self._due.set()

    def close(self, patience: Retry) -> None:
        """Publish what is left; where a person wants to leave, or the database stays away, whoever comes next does."""
        self._closing = True
        self._due.set()
        self._thread.join()
        if self._error is not None:
            raise self._error
        publish_remaining(self._publisher, patience)

    def _run(self) -> None:
        checked = done = False
        while True:
            self._due.clear()
            try:
                checked = checked or self._publisher.check()
                done = self._publisher.publish()
            except (StorageUnavailableError, optuna.exceptions.StorageInternalError):
                done = False
            except BaseException as error:  # shown by whoever wakes or closes us: a thread has nobody to tell
                self._error = error
                return
            if self._closing:
                return
            self._due.wait(None if done and checked else AGAIN_SECONDS)


def publish_remaining(publisher: Publisher, patience: Retry) -> None:
    """What the last worker could not publish: it may have been killed at it, or the database away."""

    def finish(again: bool) -> None:
        try:
            publisher.finish()
        except optuna.exceptions.StorageInternalError as error:
            raise StorageUnavailableError((str(error).splitlines() or ["the database cannot be used"])[0]) from None

    try:
        patience.call(finish)
    except StorageUnavailableError:
        return
