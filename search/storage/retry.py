"""Calling a database that is away again, until it answers."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from search.errors import StorageUnavailableError
from search.process_id import ProcessId
from search.records import Claim
from search.schedulers.scheduler import SchedulerConfig
from search.storage.claims import SegmentOutcome
from search.storage.ledger import Ledger

P = ParamSpec("P")
T = TypeVar("T")

# A server that is moved, updated or restarted is back within this time, in seconds; results of training wait for it.
OUTAGE_LIMIT_SECONDS = 1800.0
_PAUSES = (0.1, 0.3, 1.0, 3.0)  # seconds between calls; the last one from then on


class Retry:
    """Repeats calls of the database, and tells a person once that it is away and once that it is back.

    Args:
        notice: Shows one line to a person.
        stop: Whether a person wants the worker to leave; nothing is repeated then.
        seconds: How long to repeat a call before giving up.
    """

    def __init__(
        self, notice: Callable[[str], None], stop: Callable[[], bool], seconds: float = OUTAGE_LIMIT_SECONDS
    ) -> None:
        self._notice = notice
        self._stop = stop
        self._seconds = seconds
        self._is_reported = False
        self._has_given_up = False

    def call(self, function: Callable[[bool], T]) -> T:
        """The result of `function`; its argument says whether an earlier call was made, whose answer got lost.

        Raises:
            StorageUnavailableError: The database stayed away for too long, or a person wants the worker to leave. From
                then on every call is tried once, until one succeeds.
        """
        start = time.monotonic()
        tries = 0
        while True:
            try:
                answer = function(tries > 0)
            except StorageUnavailableError as error:
                if self._has_given_up or self._stop() or time.monotonic() - start > self._seconds:
                    self._has_given_up = True
                    raise
                if tries:  # two transactions in conflict are no outage
                    self.report_outage(error)
                time.sleep(_PAUSES[min(tries, len(_PAUSES) - 1)])
                tries += 1
            else:
                self.report_recovery()
                self._has_given_up = False
                return answer

    def report_outage(self, error: StorageUnavailableError) -> None:
        """Tell once that the database is away."""
        if not self._is_reported:
            self._is_reported = True
            self._notice(f"{error}; training continues, its results wait")

    def report_recovery(self) -> None:
        """Tell once that it is back."""
        if self._is_reported:
            self._is_reported = False
            self._notice("the database answers again")


def _retried(method: Callable[Concatenate[Ledger, P], T]) -> Callable[Concatenate[RetryingLedger, P], T]:
    """A method of `Ledger` that may be repeated as it is, for `RetryingLedger`."""

    def call(self: RetryingLedger, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.retry.call(lambda again: method(self.ledger, *args, **kwargs))

    return call


class RetryingLedger:
    """The methods of a ledger that a worker calls, each repeated while the database is away (see `Retry.call`)."""

    def __init__(self, ledger: Ledger, retry: Retry) -> None:
        self.ledger = ledger
        self.retry = retry
        self.study = ledger.study

    record = _retried(Ledger.record)
    history = _retried(Ledger.history)
    snapshot = _retried(Ledger.snapshot)
    request_stop = _retried(Ledger.request_stop)
    facts = _retried(Ledger.facts)
    add_fact = _retried(Ledger.add_fact)
    lower_fact = _retried(Ledger.lower_fact)
    sign_in = _retried(Ledger.sign_in)
    set_params = _retried(Ledger.set_params)
    crashed = _retried(Ledger.crashed)
    release = _retried(Ledger.release)

    def claim(self, worker: ProcessId, config: SchedulerConfig, closing: bool = False) -> Claim | None:
        """See `Ledger.claim`."""
        return self.retry.call(lambda again: self.ledger.claim(worker, config, closing, again=again))

    def commit_and_claim(
        self,
        claim: Claim,
        result: SegmentOutcome,
        config: SchedulerConfig,
        worker: ProcessId | None,
        seconds_left: float,
    ) -> tuple[str | None, Claim | None]:
        """See `Ledger.commit_and_claim`."""
        return self.retry.call(
            lambda again: self.ledger.commit_and_claim(claim, result, config, worker, seconds_left, again=again)
        )

    def fail(self, claim: Claim, failure: str, reason: str) -> bool:
        """See `Ledger.fail`."""
        # Where an earlier answer got lost, that call may have failed the configuration and released the claim.
        return self.retry.call(lambda again: self.ledger.fail(claim, failure, reason) or again)
