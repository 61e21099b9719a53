"""One claimed segment: the child trains it while the lease is renewed."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from search.errors import StorageUnavailableError
from search.execution.child_process import ChildProcess
from search.execution.messages import (
    Fact,
    Failure,
    JobAnswer,
    Limit,
    MessageError,
    PassingEvent,
    ProgressEvent,
    SegmentJob,
    SegmentStopped,
    StopRequest,
)
from search.records import Claim
from search.storage.reader import LEASE_SECONDS
from search.storage.retry import RetryingLedger


class Listener(Protocol):
    """Who watches a worker: the command line's display."""

    def claimed(self, number: int, params: Mapping[str, Any], first_step: int, last_step: int) -> None: ...
    def progress(self, number: int, event: ProgressEvent) -> None: ...
    def fact(self, key: str, value: Any) -> None: ...
    def rung(self, number: int, step: int, value: float, metrics: Mapping[str, Any], state: str) -> None: ...
    def failed(self, number: int, failure: str, reason: str) -> None: ...
    def notice(self, text: str) -> None: ...

    def at_work(self, running: Mapping[int, str]) -> None:
        """Who is at what, where several work: each running configuration's number, and where in words."""
        ...


@dataclass
class Interrupts:
    """What signals ask for: `stop` finishes the step and saves, `leave` goes at once."""

    stop: bool = False
    leave: bool = False

    def signal(self) -> None:
        self.leave, self.stop = self.stop, True

    @contextmanager
    def handle_signals(self) -> Iterator[None]:
        """Signals of the process count from now on: once finishes the step, saves, leaves; twice leaves now.

        SIGUSR2 is how Slurm says that a job's time is nearly up.
        """
        before = {
            number: signal.signal(number, lambda *_: self.signal())
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class LeaseLostError(Exception):
    """Another worker holds the claim now."""


class Segment:
    """The supervisor's conversation with the child, from the job to its last word."""

    RENEW_SECONDS: ClassVar[float] = LEASE_SECONDS / 10

    def __init__(self, ledger: RetryingLedger, child: ChildProcess, listener: Listener) -> None:
        self._ledger = ledger
        self._child = child
        self._listener = listener
        self._progress: ProgressEvent | None = None

    def run(
        self,
        claim: Claim,
        job: SegmentJob,
        interrupts: Interrupts,
        deadline: float,
        signed_in: Callable[[], None],
    ) -> JobAnswer:
        """Run the segment in the child; its answer. Raises Lost and ChildDied.

        A database that does not answer stops nothing here: the child trains on, and the result waits for it.
        """
        try:
            self._child.send(job.to_json())
        except MessageError as error:
            return Failure("bug", f"the job cannot be sent to the training process: {error}")
        told_to_stop, shown, renewed = False, False, time.monotonic()
        while True:
            event = self._child.event(timeout=0.2)
            if isinstance(event, PassingEvent):
                self._pass_on(claim, event)
            elif event is not None:
                return event
            stop = interrupts.stop or time.monotonic() >= deadline
            first = self._progress is not None and not shown  # said at once: it tells others what a step takes
            if first or time.monotonic() - renewed > self.RENEW_SECONDS:
                stop = self._renew(claim, signed_in) or stop
                shown, renewed = self._progress is not None, time.monotonic()
            if interrupts.leave:
                self._child.kill()
                return SegmentStopped(None)
            if stop and not told_to_stop:
                self._child.send(StopRequest().to_json())
                told_to_stop = True
                self._listener.notice("finishing the step, then saving (Ctrl-C again leaves at once)")

    def meanwhile(self, claim: Claim, call: Callable[[], None], signed_in: Callable[[], None]) -> None:
        """Do something long beside the child, in a thread, while the lease is renewed. Raises Lost."""
        thread = threading.Thread(target=call, daemon=True)
        thread.start()
        while True:
            thread.join(self.RENEW_SECONDS)
            if not thread.is_alive():
                return
            self._renew(claim, signed_in)

    def _pass_on(self, claim: Claim, event: PassingEvent) -> None:
        """Tell the ledger and the listener of an event that is no answer."""
        if isinstance(event, ProgressEvent):
            self._progress = event
            self._listener.progress(claim.number, event)
        elif isinstance(event, Fact):
            self._ledger.add_fact(event.key, event.value)
            self._listener.fact(event.key, event.value)
        elif isinstance(event, Limit):
            self._ledger.lower_fact(event.key, event.value)

    def _renew(self, claim: Claim, signed_in: Callable[[], None]) -> bool:
        """Keep the lease; whether the study is asked to stop. Raises Lost."""
        try:
            progress = self._progress.to_json() if self._progress else {}
            ours, asked = self._ledger.ledger.renew(claim, progress)
            if ours:
                signed_in()
        except StorageUnavailableError as error:
            self._ledger.retry.report_outage(error)
            return False
        self._ledger.retry.report_recovery()
        if not ours:
            raise LeaseLostError
        return asked
