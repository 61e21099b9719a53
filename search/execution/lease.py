"""One claimed segment: the training process runs it while its lease is renewed."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from search import platforms
from search.errors import EngineError, StorageUnavailableError
from search.execution.child_process import ChildExitError, ChildProcess
from search.execution.messages import (
    Alive,
    Fact,
    JobAnswer,
    PassingEvent,
    ProgressEvent,
    SegmentJob,
    SegmentStopped,
)
from search.execution.watchdog import Watchdog, minutes
from search.records import Claim
from search.storage.claims import SignIn
from search.storage.reader import LEASE_SECONDS
from search.storage.retry import RetryingLedger

RENEW_SECONDS = LEASE_SECONDS / 10
_EVENT_SECONDS = 0.2  # between looks at interrupts and deadline
BESIDE_SECONDS = 1800.0  # for something beside the training, such as a copy of a checkpoint
_STOP_SECONDS = 60.0  # for it to end once the worker is asked to stop


class Listener(Protocol):
    """What follows a study's workers, such as the command line's display."""

    def claimed(self, number: int, params: Mapping[str, Any], first_step: int, last_step: int) -> None: ...
    def progress(self, number: int, event: ProgressEvent) -> None: ...
    def fact(self, key: str, value: Any) -> None: ...
    def rung(self, number: int, step: int, value: float, metrics: Mapping[str, Any], state: str) -> None: ...
    def failed(self, number: int, failure: str, reason: str) -> None: ...
    def notice(self, text: str) -> None: ...

    def at_work(self, running: Mapping[int, str]) -> None:
        """The location of the worker of each running trial, by trial number."""
        ...


@dataclass
class Interrupts:
    """What signals ask for: `stop` finishes the step and saves a checkpoint, `leave` exits at once.

    `on_leave` ends waits that would keep the program from leaving; it is called in a signal's handler.
    """

    stop: bool = False
    leave: bool = False
    on_leave: Callable[[], None] | None = None

    def signal(self) -> None:
        """The first signal sets `stop`, the second `leave`."""
        self.leave = self.stop
        self.stop = True
        if self.leave and self.on_leave is not None:
            self.on_leave()

    @contextmanager
    def handle_signals(self) -> Iterator[None]:
        """Count the signals that ask a worker to stop, within the block.

        Only the main thread gets signals: in another one this does nothing.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        handlers = {number: signal.signal(number, lambda *_: self.signal()) for number in platforms.stop_signals()}
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)


class LeaseLostError(EngineError):
    """Another worker holds the claim now."""


class ClaimedSegment:
    """Runs one claimed segment in the training process and renews its lease.

    A database that does not answer stops nothing here: training continues, and the result waits for it.

    Args:
        claim: the segment, and the right to run it.
        ledger: the study.
        child: the training process.
        listener: gets progress, facts and notices.
        signed: the worker, which signs in with every renewal: it is still alive.
    """

    def __init__(
        self,
        claim: Claim,
        ledger: RetryingLedger,
        child: ChildProcess,
        listener: Listener,
        signed: SignIn,
    ) -> None:
        self._claim = claim
        self._ledger = ledger
        self._child = child
        self._listener = listener
        self._signed = signed
        self._progress: ProgressEvent | None = None

    def run(
        self, job: SegmentJob, interrupts: Interrupts, deadline: float, meanwhile: Callable[[], object]
    ) -> JobAnswer:
        """Run the segment and return the training process's answer.

        Args:
            job: the segment.
            interrupts: of a person.
            deadline: the segment is stopped when time.monotonic() passes it.
            meanwhile: called once the training process has the job, so that no training waits for it.

        Raises:
            LeaseLostError: another worker holds the claim now.
            ChildExitError: the training process ended, or showed no sign of life for too long and was ended.
        """
        failure = self._child.send_job(job)
        if failure:
            return failure
        meanwhile()
        is_progress_recorded = False
        is_stopping = False
        renewed = time.monotonic()
        watchdog = Watchdog(self._child.silence_seconds)
        while True:
            event = self._child.event(timeout=_EVENT_SECONDS)
            self._watch(watchdog, event is not None)
            if isinstance(event, PassingEvent):
                self._pass_on(event)
            elif event is not None:
                return event
            stop = interrupts.stop or time.monotonic() >= deadline
            # The first progress is recorded at once: it tells others how long a step takes.
            is_first_progress = self._progress is not None and not is_progress_recorded
            if is_first_progress or time.monotonic() - renewed > RENEW_SECONDS:
                stop = self._renew() or stop
                is_progress_recorded = self._progress is not None
                renewed = time.monotonic()
            if interrupts.leave:
                self._child.kill()
                return SegmentStopped(None)
            if stop and not is_stopping:
                is_stopping = True
                self._child.request_stop()
                self._listener.notice("finishing the step, then saving (Ctrl-C again leaves at once)")

    def _watch(self, watchdog: Watchdog, is_alive: bool) -> None:
        """End a training process that hangs, as in a call of its GPU. Raises ChildExitError."""
        if is_alive:
            watchdog.sign()
        elif watchdog.is_hung():
            self._child.kill()
            reason = f"no sign of life for {minutes(watchdog.silence)}, it was killed (TMSEARCH_WATCHDOG)"
            raise ChildExitError(platforms.KILLED, reason)
        elif watchdog.warns():
            self._listener.notice(
                f"trial {self._claim.number}: no sign of life for {minutes(watchdog.silence)}; the training process "
                f"is killed and started again after {minutes(watchdog.limit)} (TMSEARCH_WATCHDOG)"
            )

    def run_beside(self, call: Callable[[], None], purpose: str, interrupts: Interrupts) -> bool:
        """Run something long in a thread while the lease is renewed; whether it ended in time.

        It is left to itself after BESIDE_SECONDS, and sooner where the worker is asked to stop.

        Raises:
            LeaseLostError: another worker holds the claim now.
        """
        thread = threading.Thread(target=call, daemon=True)
        thread.start()
        until = time.monotonic() + BESIDE_SECONDS
        stop_until = 0.0  # when the worker was asked to stop, and a little later
        renewed = time.monotonic()
        while True:
            thread.join(_EVENT_SECONDS)
            if not thread.is_alive():
                return True
            if interrupts.stop:
                stop_until = stop_until or time.monotonic() + _STOP_SECONDS
                until = min(until, stop_until)
            if interrupts.leave or time.monotonic() > until:
                self._listener.notice(f"trial {self._claim.number}: {purpose} did not end in time; it is left out")
                return False
            if time.monotonic() - renewed > RENEW_SECONDS:
                self._renew()
                renewed = time.monotonic()

    def _pass_on(self, event: PassingEvent) -> None:
        """Record an event that is not the answer, and tell the listener."""
        if isinstance(event, ProgressEvent):
            self._progress = event
            self._listener.progress(self._claim.number, event)
        elif isinstance(event, Alive):
            return
        elif isinstance(event, Fact):
            self._ledger.add_fact(event.key, event.value)
            self._listener.fact(event.key, event.value)
        else:
            self._ledger.lower_fact(event.key, event.value)

    def _renew(self) -> bool:
        """Renew the lease; whether the study is asked to stop. Raises LeaseLostError."""
        progress = self._progress.to_json() if self._progress else {}
        try:
            is_held, is_stop_requested = self._ledger.ledger.renew(self._claim, progress, self._signed)
        except StorageUnavailableError as error:
            self._ledger.retry.report_outage(error)
            return False
        self._ledger.retry.report_recovery()
        if not is_held:
            raise LeaseLostError
        return is_stop_requested
