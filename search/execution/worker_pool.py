"""Several workers of one study: started, watched, replaced when they die, and asked to stop."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from search import platforms
from search.dashboard.background import publish_remaining
from search.dashboard.publisher import Publisher
from search.errors import RunError, StorageUnavailableError, UserError
from search.execution.launchers import Launcher, WorkerHandle
from search.execution.lease import Interrupts
from search.execution.monitor import Monitor
from search.execution.worker import Outcome
from search.exit_codes import BAD_INPUT, DONE, INTERRUPTED, MACHINE
from search.records import StudyRecord
from search.storage.ledger import Ledger
from search.storage.retry import Retry

TICK_SECONDS = 0.2
MONITOR_SECONDS = 1.0  # between reads of the ledger for the display
LEAVE_SECONDS = 10.0  # for workers to exit by themselves once all trials have ended
LONGEST_RESTART_DELAY = 30.0  # seconds
# A signal can be lost on its way, and a worker can hang. From the first request to stop: a second one, at which a
# worker leaves at once; the end of those that still run; then they are waited for no longer.
INSIST_SECONDS = 120.0  # enough to finish a step and to save
KILL_SECONDS = 150.0
ABANDON_SECONDS = 210.0
OUTCOME_SECONDS = 60.0  # for the database to say what the study came to
# A worker that dies within EARLY_SECONDS of its start more often than EARLY_DEATHS times in a row is not replaced.
EARLY_SECONDS = 60.0
EARLY_DEATHS = 5
# Ended from outside: no fault of the worker's.
TERMINATED = (INTERRUPTED, platforms.TERMINATED, platforms.KILLED, platforms.CONTROL_C_EXIT)


@dataclass
class _Slot:
    """One worker after another, under one number."""

    number: int
    handle: WorkerHandle | None = None
    started: float = -math.inf  # time.monotonic()
    early_deaths: int = 0
    is_closed: bool = False  # no worker is started here any more

    @property
    def restart_delay(self) -> float:
        """Seconds from one start to the next."""
        return min(2.0**self.early_deaths, LONGEST_RESTART_DELAY)


class WorkerPool:
    """Keeps `count` workers running; the search itself is theirs, and they coordinate through the ledger alone.

    Args:
        launcher: starts workers.
        count: how many.
        ledger: the study.
        monitor: tells the display what the workers do.
        notice: shows one line to a person.
        publisher: publishes what the last worker could not publish any more.
        clean_up: removes the checkpoints that the last worker could not remove any more.
    """

    def __init__(
        self,
        launcher: Launcher,
        count: int,
        ledger: Ledger,
        monitor: Monitor,
        notice: Callable[[str], None],
        publisher: Publisher | None = None,
        clean_up: Callable[[], object] | None = None,
    ) -> None:
        self._launcher = launcher
        self._ledger = ledger
        self._monitor = monitor
        self._notice = notice
        self._publisher = publisher
        self._clean_up = clean_up
        self._slots = [_Slot(number) for number in range(count)]
        self._is_stopping = False
        self._is_insisting = False
        self._is_killing = False
        self._stopping_since = math.inf  # time.monotonic()
        self._monitored = -math.inf  # time.monotonic() of the last look
        self._input_problem: str | None = None  # what a worker reported that a person has to fix
        self._machine_problem: str | None = None  # for which a worker left
        self._all_ended_since = math.inf

    def run(self, interrupts: Interrupts, deadline: float = math.inf) -> Outcome:
        """Run until every worker has exited; they are stopped once time.monotonic() passes `deadline`.

        Raises:
            UserError: a worker reported what a person has to fix.
            RunError: the study was stopped for a bug, or no worker could run.
        """
        try:
            while not all(slot.is_closed for slot in self._slots):
                self._stop_if_asked(interrupts, deadline)
                for slot in self._slots:
                    self._attend(slot)
                self._end_overdue_workers()
                self._look_at_study()
                time.sleep(TICK_SECONDS)
        finally:
            for slot in self._slots:
                if slot.handle is not None and slot.handle.poll() is None:
                    slot.handle.kill()
            self._launcher.close()
        if not interrupts.leave:
            self._finish(Retry(self._notice, lambda: interrupts.stop))
        # All is done and saved: a server that restarts in this very moment does not make it an error.
        retry = Retry(self._notice, lambda: interrupts.leave, OUTCOME_SECONDS)
        retry.call(lambda again: self._monitor.poll())
        return retry.call(lambda again: self._outcome(interrupts, deadline))

    def _finish(self, retry: Retry) -> None:
        """Do what the last workers may have been killed at."""
        if self._publisher is not None:
            publish_remaining(self._publisher, retry)
        if self._clean_up is not None:
            clean_up = self._clean_up
            with contextlib.suppress(StorageUnavailableError):  # the next run does it
                retry.call(lambda again: clean_up())

    def _stop_if_asked(self, interrupts: Interrupts, deadline: float) -> None:
        if interrupts.leave and not self._is_killing:
            self._kill_workers()
            return
        stop = interrupts.stop or self._input_problem is not None or time.monotonic() >= deadline
        if stop and not self._is_stopping:
            if interrupts.stop:
                self._notice("every worker finishes its step, then saves (Ctrl-C again leaves at once)")
            self._stop_workers()

    def _stop_workers(self) -> None:
        """Ask every worker to save and exit; start no more."""
        self._is_stopping = True
        self._stopping_since = min(self._stopping_since, time.monotonic())
        for handle in self._close_empty_slots():
            handle.stop()

    def _kill_workers(self) -> None:
        """End every worker now; start no more."""
        self._is_stopping = True
        self._is_killing = True
        # What is waited for is their end alone, however long ago they were asked to stop.
        self._stopping_since = time.monotonic() - KILL_SECONDS
        for handle in self._close_empty_slots():
            handle.kill()

    def _close_empty_slots(self) -> list[WorkerHandle]:
        """Start nothing any more; the workers that run."""
        for slot in self._slots:
            slot.is_closed = slot.is_closed or slot.handle is None
        return [slot.handle for slot in self._slots if slot.handle is not None]

    def _end_overdue_workers(self) -> None:
        """Insist where a worker has been asked to stop for long, so that the wait for it ends."""
        waited = time.monotonic() - self._stopping_since
        running = [slot for slot in self._slots if not slot.is_closed]
        if not running or waited < INSIST_SECONDS:
            return
        if waited > ABANDON_SECONDS:
            for slot in running:
                slot.is_closed = True
            self._notice(f"{_names(running)}: could not be ended, not waited for any longer")
        elif waited > KILL_SECONDS and not self._is_killing:
            self._notice(f"{_names(running)}: killed, as it did not stop; what it had saved stays")
            self._kill_workers()
        elif not self._is_insisting and not self._is_killing:
            self._is_insisting = True
            self._notice(f"{_names(running)}: no stop within {INSIST_SECONDS:.0f} s, asked to leave at once")
            self._stop_workers()

    def _attend(self, slot: _Slot) -> None:
        """Start a worker in an empty slot; handle the exit of one that has ended."""
        if slot.is_closed:
            return
        if slot.handle is None:
            if time.monotonic() - slot.started > slot.restart_delay and self._needs_worker(slot):
                slot.started = time.monotonic()
                slot.handle = self._launcher.start(slot.number)
            return
        code = slot.handle.poll()
        if code is None:
            return
        last_line = slot.handle.last_line()
        slot.handle = None
        if code == DONE or self._is_stopping:
            slot.is_closed = True
        elif code == BAD_INPUT:
            # A person has to fix it: no worker starts anything more, and those at work save.
            slot.is_closed = True
            self._input_problem = last_line.removeprefix("tmsearch: ")
        elif code == MACHINE:
            # It has tried again itself; the others continue.
            slot.is_closed = True
            self._machine_problem = last_line.removeprefix("tmsearch: ")
            self._notice(f"worker {slot.number} leaves: {self._machine_problem}")
        else:
            self._handle_death(slot, code, last_line)

    def _handle_death(self, slot: _Slot, code: int, last_line: str) -> None:
        record = self._record()
        if record is not None and record.stopping:
            slot.is_closed = True
            return
        if code not in TERMINATED:
            is_early = time.monotonic() - slot.started < EARLY_SECONDS
            slot.early_deaths = slot.early_deaths + 1 if is_early else 1
        how = "was terminated" if code == INTERRUPTED else f"ended ({code})"
        if slot.early_deaths > EARLY_DEATHS:
            slot.is_closed = True
            count = f"{slot.early_deaths} times in a row"
            self._notice(f"worker {slot.number} {how} {count} and is given up: {last_line}")
        else:
            self._notice(f"worker {slot.number} {how}; another one replaces it")

    def _needs_worker(self, slot: _Slot) -> bool:
        """Whether a worker would find work; False while the database is away."""
        record = self._record()
        if record is None:
            return False
        if record.stopping:
            slot.is_closed = True
        return not slot.is_closed

    def _record(self) -> StudyRecord | None:
        try:
            return self._ledger.record()
        except StorageUnavailableError:
            return None

    def _look_at_study(self) -> None:
        if time.monotonic() - self._monitored > MONITOR_SECONDS:
            self._monitored = time.monotonic()
            self._monitor.try_poll()
            self._stop_after_end()

    def _stop_after_end(self) -> None:
        """Workers exit by themselves once all trials have ended; stop those that a cluster has not started yet."""
        record = self._record()
        if record is None or not self._have_all_ended(record):
            return
        self._all_ended_since = min(self._all_ended_since, time.monotonic())
        if not self._is_stopping and time.monotonic() - self._all_ended_since > LEAVE_SECONDS:
            self._stop_workers()

    def _have_all_ended(self, record: StudyRecord) -> bool:
        try:
            history = self._ledger.history()
        except StorageUnavailableError:
            return False
        return len(history) >= record.trials and all(trial.ended for trial in history)

    def _outcome(self, interrupts: Interrupts, deadline: float) -> Outcome:
        record = self._ledger.record()
        if self._input_problem is not None:
            raise UserError(self._input_problem)
        if record.stop_reason:
            raise RunError(record.stop_reason)
        if interrupts.stop:
            return "interrupted"
        if record.stopping:
            return "stopped"
        if self._have_all_ended(record):
            return "done"
        if time.monotonic() >= deadline or math.isfinite(deadline):
            return "timeout"
        if self._machine_problem is not None:
            raise RunError(self._machine_problem)
        raise RunError(f"{record.name}: no worker could run; their output is in the study's workers folder")


def _names(slots: list[_Slot]) -> str:
    """Such as `workers 0, 2`."""
    return f"worker{'s' if len(slots) > 1 else ''} {', '.join(str(slot.number) for slot in slots)}"
