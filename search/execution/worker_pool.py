"""Several workers of one study: started, watched, replaced where they die, and told what a person asks."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from search.dashboard.background import publish_remaining
from search.dashboard.publisher import Publisher
from search.errors import RunError, StorageUnavailableError, UserError
from search.execution.launchers import Launcher, WorkerHandle
from search.execution.lease import Interrupts
from search.execution.monitor import Monitor
from search.execution.worker import Outcome
from search.records import StudyRecord
from search.storage.ledger import Ledger
from search.storage.retry import Retry

TICK_SECONDS = 0.2
LOOK_SECONDS = 1.0  # how often the ledger is read for the display
LEAVE_SECONDS = 10.0  # what workers get to leave by themselves once all is done
# A worker that dies within so many seconds of its start, so many times in a row, will do it again.
YOUNG_SECONDS, YOUNG_DEATHS = 60.0, 5
DONE, BAD_INPUT, INTERRUPTED = 0, 2, 130
KILLED = (INTERRUPTED, -signal.SIGTERM, -signal.SIGKILL)  # by somebody else: no fault of the worker's


@dataclass
class _Seat:
    number: int
    handle: WorkerHandle | None = None
    started: float = -math.inf
    young_deaths: int = 0
    left: bool = False  # its worker left by itself, or nobody takes it any more


class WorkerPool:
    """`count` workers by `engine`. Nothing of the search is in here: the workers agree through the ledger alone."""

    def __init__(
        self,
        engine: Launcher,
        count: int,
        ledger: Ledger,
        follower: Monitor,
        notice: Callable[[str], None],
        publisher: Publisher | None = None,
    ) -> None:
        self._engine = engine
        self._ledger = ledger
        self._follower = follower
        self._notice = notice
        self._publisher = publisher  # of what the last worker could not publish any more
        self._seats = [_Seat(number) for number in range(count)]
        self._told = 0  # what they were told: 0 nothing, 1 to stop, 2 to go at once
        self._looked = -math.inf
        self._mistake: str | None = None
        self._over_since = math.inf

    def run(self, interrupts: Interrupts, deadline: float = math.inf) -> Outcome:
        """Until every worker left; time.monotonic() past `deadline` stops them.

        Raises UserError and RunError with what a worker said that could not go on.
        """
        try:
            while any(not seat.left for seat in self._seats):
                self._pass_on(interrupts, deadline)
                for seat in self._seats:
                    self._tend(seat)
                self._look()
                time.sleep(TICK_SECONDS)
        finally:
            for seat in self._seats:
                if seat.handle is not None and seat.handle.poll() is None:
                    seat.handle.kill()
            self._engine.close()
        if self._publisher is not None and not interrupts.leave:
            publish_remaining(self._publisher, Retry(self._notice, lambda: interrupts.stop))
        self._follower.look()
        return self._outcome(interrupts, deadline)

    def _pass_on(self, interrupts: Interrupts, deadline: float) -> None:
        stop = interrupts.stop or self._mistake is not None or time.monotonic() >= deadline
        wanted = 2 if interrupts.leave else int(stop)
        if wanted <= self._told:
            return
        self._told = wanted
        if wanted == 1 and interrupts.stop:
            self._notice("every worker finishes its step, then saves (Ctrl-C again leaves at once)")
        for seat in self._seats:
            if seat.handle is None:
                seat.left = True
            elif wanted == 1:
                seat.handle.stop()
            else:
                seat.handle.kill()

    def _tend(self, seat: _Seat) -> None:
        """Fill an empty seat; see how one that is empty again came to be so."""
        if seat.left:
            return
        if seat.handle is None:
            if time.monotonic() - seat.started > min(2.0**seat.young_deaths, 30.0) and self._wanted(seat):
                seat.started = time.monotonic()
                seat.handle = self._engine.start(seat.number)
            return
        code = seat.handle.poll()
        if code is None:
            return
        words, seat.handle = seat.handle.last_line(), None
        if code == DONE or self._told:
            seat.left = True
        elif code == BAD_INPUT:
            # A person's to mend: nobody begins anything more, and those at work save.
            seat.left, self._mistake = True, words.removeprefix("tmsearch: ")
        else:
            self._died(seat, code, words)

    def _died(self, seat: _Seat, code: int, words: str) -> None:
        record = self._record()
        if record is not None and record.stopping:
            seat.left = True
            return
        if code not in KILLED:
            young = time.monotonic() - seat.started < YOUNG_SECONDS
            seat.young_deaths = seat.young_deaths + 1 if young else 1
        how = "was told to end" if code == INTERRUPTED else f"ended ({code})"
        if seat.young_deaths > YOUNG_DEATHS:
            seat.left = True
            self._notice(f"worker {seat.number} {how} {seat.young_deaths} times in a row and is given up: {words}")
        else:
            self._notice(f"worker {seat.number} {how}; another one takes its place")

    def _wanted(self, seat: _Seat) -> bool:
        """Whether a worker would find something to do; a database that is away is waited for."""
        record = self._record()
        if record is None:
            return False
        if record.stopping:
            seat.left = True
        return not seat.left

    def _record(self) -> StudyRecord | None:
        try:
            return self._ledger.record()
        except StorageUnavailableError:
            return None

    def _look(self) -> None:
        if time.monotonic() - self._looked > LOOK_SECONDS:
            self._looked = time.monotonic()
            self._follower.try_look()
            self._send_home()

    def _send_home(self) -> None:
        """Once all is done workers leave by themselves; one that still waits for its turn would come for nothing."""
        record = self._record()
        if record is None or not self._over(record):
            return
        self._over_since = min(self._over_since, time.monotonic())
        if not self._told and time.monotonic() - self._over_since > LEAVE_SECONDS:
            self._told = 1
            for seat in self._seats:
                if seat.handle is not None:
                    seat.handle.stop()
                else:
                    seat.left = True

    def _over(self, record: StudyRecord) -> bool:
        try:
            history = self._ledger.history()
        except StorageUnavailableError:
            return False
        return len(history) >= record.trials and all(one.ended for one in history)

    def _outcome(self, interrupts: Interrupts, deadline: float) -> Outcome:
        record = self._ledger.record()
        if self._mistake is not None:
            raise UserError(self._mistake)
        if record.stop_reason:
            raise RunError(record.stop_reason)
        if interrupts.stop:
            return "interrupted"
        if record.stopping:
            return "stopped"
        if self._over(record):
            return "done"
        if time.monotonic() >= deadline or math.isfinite(deadline):
            return "timeout"
        raise RunError(f"{record.name}: no worker could go on; what they said is in the study's workers folder")
