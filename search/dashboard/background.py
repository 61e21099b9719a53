"""Publishes to Optuna in a thread beside the training, so that no segment waits for it."""

from __future__ import annotations

import threading
import time

import optuna

from search.dashboard.publisher import Publisher
from search.errors import StorageUnavailableError, first_line
from search.storage.retry import Retry

# What another worker was publishing, or the database could not take, is tried again after so many seconds.
AGAIN_SECONDS = 5.0
_CLOSING_SECONDS = 0.2  # between looks at whether the worker leaves
FILES_AGAIN_SECONDS = 60.0  # the same, where the artifacts' folder is full or read-only


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
        """Tell that something changed. Raises what publishing raised, unless database or disk could not take it."""
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
        while True:
            pause: float | None = AGAIN_SECONDS
            self._due.clear()
            try:
                checked = checked or self._publisher.check()
                if self._publisher.publish() and checked:
                    pause = None
            except (StorageUnavailableError, optuna.exceptions.StorageInternalError):
                pass  # it is tried again
            except OSError as error:
                self._publisher.report_delay(error)
                pause = FILES_AGAIN_SECONDS
            except BaseException as error:  # raised again in the thread that calls `wake` or `close`
                self._error = error
                return
            if self._closing:
                return
            self._wait(pause)

    def _wait(self, seconds: float | None) -> None:
        """Until something changes or the time is up; after trouble with files, not before that."""
        if seconds != FILES_AGAIN_SECONDS:
            self._due.wait(seconds)
            return
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._closing:
            time.sleep(_CLOSING_SECONDS)


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
    except OSError as error:  # the results are in the ledger: the next worker publishes them
        publisher.report_delay(error)
