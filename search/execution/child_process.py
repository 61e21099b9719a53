"""The training process: started, sent jobs and ended by its supervisor, which imports none of its libraries."""

from __future__ import annotations

import collections
import contextlib
import io
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from search.errors import EngineError
from search.execution import messages, wire
from search.execution.messages import (
    Checked,
    CheckJob,
    Event,
    Failure,
    Job,
    SegmentResult,
    SegmentStopped,
    Tested,
    TestJob,
)
from search.execution.wire import MessageError

# Signals by which a person, a scheduler or a shutdown asks a process to end: no fault of the process.
TERMINATION_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
CLOSE_SECONDS = 10.0  # for a process to exit once its standard input is closed
_STDERR_LINES = 200  # kept for error messages
# The training process never speaks to the database.
_SUPERVISOR_SECRETS = ("TMSEARCH_STORAGE", "PGPASSWORD")


class ChildExitError(EngineError):
    """The process ended without an answer; `code` is subprocess's, negative for a signal."""

    def __init__(self, code: int) -> None:
        super().__init__(f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}")
        self.code = code

    @property
    def was_terminated(self) -> bool:
        return -self.code in TERMINATION_SIGNALS

    @property
    def was_killed(self) -> bool:
        return self.code == -signal.SIGKILL


class ChildProcess:
    """One process that runs job after job: started at the first job, and again after it died.

    Args:
        command: starts the process.
        log: file that its stderr is appended to.
        environment: defaults; variables that a person has set take precedence.
    """

    def __init__(
        self, command: Sequence[str], log: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        self._command = list(command)
        self._environment = dict(environment or {})
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._lines: queue.Queue[bytes | None] = queue.Queue()
        self.stderr_lines: collections.deque[str] = collections.deque(maxlen=_STDERR_LINES)

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def log_to(self, log: Path) -> None:
        """Append the process's stderr to this file from now on."""
        self._log = log

    def send(self, message: Mapping[str, Any]) -> None:
        """Send one message; starts the process if it does not run. Raises MessageError where it cannot be sent."""
        line = wire.encode(message)
        if self._process is None or self._process.poll() is not None:
            self._start()
        assert self._process is not None
        assert self._process.stdin is not None
        # If the process has died meanwhile, the next `receive` reports it.
        with contextlib.suppress(OSError):
            self._process.stdin.write(line)
            self._process.stdin.flush()

    def send_job(self, job: Job) -> Failure | None:
        """Send a job; a Failure where it cannot be sent."""
        try:
            self.send(job.to_json())
        except MessageError as error:
            return Failure("bug", f"the job cannot be sent to the training process: {error}")
        return None

    def receive(self, timeout: float) -> dict[str, Any] | None:
        """The process's next message; None if none came within `timeout` seconds.

        Raises:
            ChildExitError: the process has ended.
            MessageError: the message cannot be read.
        """
        try:
            line = self._lines.get(timeout=timeout)
        except queue.Empty:
            return None
        if line is not None:
            return wire.decode(line)
        assert self._process is not None
        code = self._process.wait()
        self._process = None
        raise ChildExitError(code)

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
        """End the process now. What it has saved is on disk."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._process = None

    def close(self) -> None:
        """Let the process exit by closing its standard input."""
        if self._process is None or self._process.poll() is not None:
            return
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def _start(self) -> None:
        self._lines = queue.Queue()
        inherited = {name: value for name, value in os.environ.items() if name not in _SUPERVISOR_SECRETS}
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Ctrl-C reaches the whole process group of a terminal: the supervisor alone answers it.
            start_new_session=True,
            env={**self._environment, **inherited},
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        threading.Thread(target=_queue_lines, args=(self._process.stdout, self._lines), daemon=True).start()
        threading.Thread(target=self._read_stderr, args=(self._process.stderr,), daemon=True).start()

    def _read_stderr(self, stream: BinaryIO) -> None:
        for line in io.TextIOWrapper(stream, encoding="utf-8", errors="replace"):
            self._record_stderr(line)

    def _record_stderr(self, line: str) -> None:
        self.stderr_lines.append(line.rstrip("\n"))
        if self._log is not None:
            with contextlib.suppress(OSError), self._log.open("a", encoding="utf-8") as log:
                log.write(line)


def _queue_lines(stream: BinaryIO, lines: queue.Queue[bytes | None]) -> None:
    """Put the stream's lines on the queue, None at its end."""
    for line in wire.read_lines(stream):
        lines.put(line)
    lines.put(None)


def run_job(child: ChildProcess, job: CheckJob | TestJob) -> Checked | Tested | Failure:
    """Run a job that belongs to no segment and return its answer. Raises ChildExitError."""
    failure = child.send_job(job)
    if failure:
        return failure
    while True:
        event = child.event(timeout=1.0)
        if isinstance(event, Checked | Tested | Failure):
            return event
        if isinstance(event, SegmentResult | SegmentStopped):
            return Failure("bug", f"unexpected answer {event}")
