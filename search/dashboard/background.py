"""Publishes to Optuna in a thread beside the training, so that no segment waits for it."""

from __future__ import annotations

import threading

import optuna

from search.dashboard.publisher import Publisher
from search.errors import StorageUnavailableError, first_line
from search.storage.retry import Retry

# What another worker was publishing, or the database could not take, is tried again after so many seconds.
AGAIN_SECONDS = 5.0


class BackgroundPublisher:
    """One thread of a worker. `wake` tells it that something changed; `close` publishes what remains."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._due = threading.Event()
        self._closing = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Tell that something changed. Raises what publishing raised, unless the database was away."""
        if self._error is not None:
            raise self._error
        self._due.set()

    def close(self, retry: Retry) -> None:
        """End the thread and publish what remains; raises as `wake` does.

        If a person wants to leave, or the database stays away, the next worker publishes it.
        """
        self._closing = True
        self._due.set()
        self._thread.join()
        if self._error is not None:
            raise self._error
        publish_remaining(self._publisher, retry)

    def _run(self) -> None:
        checked = False
        done = False
        while True:
            self._due.clear()
            try:
                checked = checked or self._publisher.check()
                done = self._publisher.publish()
            except (StorageUnavailableError, optuna.exceptions.StorageInternalError):
                done = False
            except BaseException as error:  # raised again in the thread that calls `wake` or `close`
                self._error = error
                return
            if self._closing:
                return
            self._due.wait(None if done and checked else AGAIN_SECONDS)


def publish_remaining(publisher: Publisher, retry: Retry) -> None:
    """Publish what the last worker could not: it may have been killed meanwhile, or the database away."""

    def finish(again: bool) -> None:
        try:
            publisher.finish()
        except optuna.exceptions.StorageInternalError as error:
            raise StorageUnavailableError(first_line(error)) from None

    try:
        retry.call(finish)
    except StorageUnavailableError:
        return
