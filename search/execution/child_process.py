"""The training process: started, sent jobs and ended by its supervisor, which imports none of its libraries."""

from __future__ import annotations

import collections
import contextlib
import io
import os
import queue
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from search import platforms
from search.errors import EngineError
from search.execution import log_file, messages, wire
from search.execution.messages import (
    Checked,
    CheckJob,
    Event,
    Failure,
    Job,
    SegmentResult,
    SegmentStopped,
    StopRequest,
    Tested,
    TestJob,
)
from search.execution.watchdog import Watchdog, minutes
from search.execution.wire import MessageError

CLOSE_SECONDS = 10.0  # for a process to exit once its standard input is closed
KILL_SECONDS = 30.0  # for a process to be gone after SIGKILL; one that is stuck in a driver stays
_LAST_LINES_SECONDS = 2.0  # for the last lines of a process that has exited
JOB_SECONDS = 12 * 3600.0  # of a job that shows no signs of life on the way: a check may fetch a large dataset
_STDERR_LINES = 200  # kept for error messages
_STDERR_LINE_LENGTH = 10_000  # characters; a longer line is cut into lines
# The training process never speaks to the database.
_SUPERVISOR_SECRETS = ("TMSEARCH_STORAGE", "PGPASSWORD")


class ChildExitError(EngineError):
    """The process ended without an answer; `code` is subprocess's, negative for a signal.

    `reason` says why this program ended it.
    """

    def __init__(self, code: int, reason: str = "") -> None:
        ending = f"killed by {platforms.signal_name(-code)}" if code < 0 else f"exit code {code}"
        super().__init__(reason or ending)
        self.code = code
        self._reason = reason

    @property
    def was_terminated(self) -> bool:
        return -self.code in platforms.termination_signals() or self.code == platforms.CONTROL_C_EXIT

    @property
    def was_killed(self) -> bool:
        """By somebody else: not for what it did."""
        return self.code == platforms.KILLED and not self._reason


class ChildProcess:
    """One process that runs job after job: started at the first job, and again after it died.

    Args:
        command: starts the process.
        log: file that its stderr is appended to.
        environment: defaults; variables that a person has set take precedence.
        silence_seconds: how long it may show no sign of life during a job, 0 for no limit; None: by its own pace.
    """

    def __init__(
        self,
        command: Sequence[str],
        log: Path | None = None,
        environment: Mapping[str, str] | None = None,
        silence_seconds: float | None = None,
    ) -> None:
        self._command = list(command)
        self._environment = dict(environment or {})
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._lines: queue.Queue[bytes | None] = queue.Queue()
        self._outgoing: queue.Queue[bytes | None] = queue.Queue()
        self.silence_seconds = silence_seconds
        self.stderr_lines: collections.deque[str] = collections.deque(maxlen=_STDERR_LINES)

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def log_to(self, log: Path) -> None:
        """Append the process's stderr to this file from now on."""
        self._log = log

    def send(self, message: Mapping[str, Any]) -> None:
        """Send one message; starts the process if it does not run. Raises MessageError where it cannot be sent.

        Returns at once, also where the process does not read it.
        """
        line = wire.encode(message)
        if self._process is None or self._process.poll() is not None:
            self.kill()  # what an ended one has started
            self._start()
        # If the process has died meanwhile, the next `receive` reports it.
        self._outgoing.put(line)

    def send_job(self, job: Job) -> Failure | None:
        """Send a job; a Failure where it cannot be sent."""
        try:
            self.send(job.to_json())
        except MessageError as error:
            return Failure("bug", f"the job cannot be sent to the training process: {error}")
        return None

    def request_stop(self) -> None:
        """Ask the job at work to stop. Starts nothing: a process that was started for it would wait for a job for ever.

        Where the process has died meanwhile, the next `receive` reports it.
        """
        self._outgoing.put(wire.encode(StopRequest().to_json()))

    def receive(self, timeout: float) -> dict[str, Any] | None:
        """The process's next message; None if none came within `timeout` seconds.

        Raises:
            ChildExitError: the process has ended, or it closed its output and was ended for that.
            MessageError: the message cannot be read.
        """
        line: bytes | None = None
        try:
            line = self._lines.get(timeout=timeout)
        except queue.Empty:
            if self._process is None or self._process.poll() is None:
                return None
            # It has exited, and a process that it started may hold its output open: no end of that will come.
            with contextlib.suppress(queue.Empty):
                line = self._lines.get(timeout=_LAST_LINES_SECONDS)
        if line is not None:
            return wire.decode(line)
        raise self._exit_error()

    def _exit_error(self) -> ChildExitError:
        """How the process ended; one that has closed its output and lives is killed."""
        assert self._process is not None
        try:
            error = ChildExitError(self._process.wait(timeout=CLOSE_SECONDS))
        except subprocess.TimeoutExpired:
            error = ChildExitError(platforms.KILLED, "it closed its output without an answer, and was killed")
        self.kill()
        return error

    def event(self, timeout: float) -> Event | None:
        """As `receive`, for a training process. One whose message cannot be read is killed: a Failure."""
        try:
            message = self.receive(timeout)
            return None if message is None else messages.event_from_json(message)
        except MessageError as error:
            reason = f"a message of the training process cannot be read: {error}"
            self._record_stderr(f"{reason}\n")
            self.kill()
            return Failure("bug", reason)

    def kill(self) -> None:
        """End the process and those that it started now. What it has saved is on disk."""
        process = self._process
        self._process = None
        self._outgoing.put(None)
        if process is None:
            return
        platforms.kill_tree(process)
        # After a process that not even SIGKILL ends, as one in a driver's call, the next one is started beside it.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=KILL_SECONDS)

    def close(self) -> None:
        """Let the process exit by closing its standard input."""
        if self._process is None:
            return
        self._outgoing.put(None)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=CLOSE_SECONDS)
        self.kill()

    def _start(self) -> None:
        self._lines = queue.Queue()
        self._outgoing = queue.Queue()
        inherited = {name: value for name, value in os.environ.items() if name not in _SUPERVISOR_SECRETS}
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**self._environment, **inherited},
            **platforms.apart(),  # the supervisor alone answers a Ctrl-C
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        threading.Thread(target=_write_lines, args=(self._process.stdin, self._outgoing), daemon=True).start()
        threading.Thread(target=_queue_lines, args=(self._process.stdout, self._lines), daemon=True).start()
        threading.Thread(target=self._read_stderr, args=(self._process.stderr,), daemon=True).start()

    def _read_stderr(self, stream: BinaryIO) -> None:
        lines = io.TextIOWrapper(stream, encoding="utf-8", errors="replace")
        while line := lines.readline(_STDERR_LINE_LENGTH):
            self._record_stderr(line)

    def _record_stderr(self, line: str) -> None:
        self.stderr_lines.append(line.rstrip("\n"))
        if self._log is not None:
            log_file.append(self._log, line)


def _queue_lines(stream: BinaryIO, lines: queue.Queue[bytes | None]) -> None:
    """Put the stream's lines on the queue, None at its end."""
    try:
        for line in wire.read_lines(stream):
            lines.put(line)
    finally:
        lines.put(None)


def _write_lines(stream: BinaryIO, lines: queue.Queue[bytes | None]) -> None:
    """Write the queue's lines until None comes, then close the stream; may block for ever, in its own thread."""
    with contextlib.suppress(OSError):
        while (line := lines.get()) is not None:
            stream.write(line)
            stream.flush()
    with contextlib.suppress(OSError):
        stream.close()


def run_job(child: ChildProcess, job: CheckJob | TestJob) -> Checked | Tested | Failure:
    """Run a job that belongs to no segment and return its answer.

    Raises:
        ChildExitError: the process ended, or took longer than its limit and was ended for that.
    """
    failure = child.send_job(job)
    if failure:
        return failure
    watchdog = Watchdog(JOB_SECONDS if child.silence_seconds is None else child.silence_seconds)
    while True:
        event = child.event(timeout=1.0)
        if event is not None:
            watchdog.sign()
        if watchdog.is_hung():
            child.kill()
            raise ChildExitError(platforms.KILLED, f"no sign of life for {minutes(watchdog.silence)}, it was killed")
        if isinstance(event, Checked | Tested | Failure):
            return event
        if isinstance(event, SegmentResult | SegmentStopped):
            return Failure("bug", f"unexpected answer {event}")
