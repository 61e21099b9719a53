"""The process that trains: started, spoken to in JSON lines, and ended, without importing what it imports."""

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

from search.execution import messages
from search.execution.messages import (
    Checked,
    CheckJob,
    Event,
    Failure,
    MessageError,
    SegmentResult,
    SegmentStopped,
    Tested,
    TestJob,
)

# How long a child that was told to stop may take to finish its step and save, seconds.
STOP_PATIENCE = 600.0


# How a process is told to go, by a person, a scheduler or a machine that shuts down: no fault of what it did.
TOLD_TO_END = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class ChildExitError(Exception):
    """The child ended without an answer; the text says how. `code` as subprocess gives it: below 0, a signal."""

    def __init__(self, code: int) -> None:
        super().__init__(f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}")
        self.code = code

    @property
    def told_to_end(self) -> bool:
        return -self.code in TOLD_TO_END

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL


class ChildProcess:
    """A warm child: one process that runs job after job. Started at the first job, again after a death.

    `environment` holds defaults: what a person set stands.
    """

    def __init__(
        self, command: Sequence[str], log: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        self._command = list(command)
        self._environment = dict(environment or {})
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._lines: queue.Queue[bytes | None] = queue.Queue()
        self.stderr_lines: collections.deque[str] = collections.deque(maxlen=200)

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def log_to(self, log: Path) -> None:
        """Keep what the child says on stderr in this file from its next start on, and what it said till now."""
        self._log = log

    def send(self, message: Mapping[str, Any]) -> None:
        """One message to the child; starts it if it does not run. Raises MessageError where it cannot be sent."""
        line = messages.encode(message)
        if self._process is None or self._process.poll() is not None:
            self._start()
        assert self._process is not None
        assert self._process.stdin is not None
        # A child that died under the message is found dead by the next `receive`.
        with contextlib.suppress(OSError):
            self._process.stdin.write(line)
            self._process.stdin.flush()

    def receive(self, timeout: float) -> dict[str, Any] | None:
        """The child's next message; None if none came within `timeout` seconds.

        Raises ChildDied, and MessageError where it cannot be read.
        """
        try:
            line = self._lines.get(timeout=timeout)
        except queue.Empty:
            return None
        if line is not None:
            return messages.decode(line)
        assert self._process is not None
        code = self._process.wait()
        self._process = None
        raise ChildExitError(code)

    def event(self, timeout: float) -> Event | None:
        """As `receive`, for a training process. One that sends what cannot be read is ended: a Failure."""
        try:
            message = self.receive(timeout)
            return None if message is None else messages.event_from_json(message)
        except MessageError as error:
            reason = f"a message of the training process cannot be read: {error}"
            self._keep(f"{reason}\n")
            self.kill()
            return Failure("bug", reason)

    def kill(self) -> None:
        """End it now. What it saved is on disk."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._process = None

    def close(self) -> None:
        """Let it end by itself: its standard input closes."""
        if self._process is None or self._process.poll() is not None:
            return
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.kill()

    def _start(self) -> None:
        self._lines = queue.Queue()
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Ctrl-C reaches the whole process group of a terminal: the supervisor alone answers it.
            start_new_session=True,
            # No password of ours reaches the child: it never speaks to the database.
            env={
                **self._environment,
                **{name: value for name, value in os.environ.items() if name not in _SECRETS_OF_THE_SUPERVISOR},
            },
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        threading.Thread(target=_listen, args=(self._process.stdout, self._lines), daemon=True).start()
        threading.Thread(target=self._overhear, args=(self._process.stderr,), daemon=True).start()

    def _overhear(self, stream: BinaryIO) -> None:
        for line in io.TextIOWrapper(stream, encoding="utf-8", errors="replace"):
            self._keep(line)

    def _keep(self, line: str) -> None:
        self.stderr_lines.append(line.rstrip("\n"))
        if self._log is not None:
            with contextlib.suppress(OSError), self._log.open("a", encoding="utf-8") as log:
                log.write(line)


def _listen(stream: BinaryIO, lines: queue.Queue[bytes | None]) -> None:
    for line in messages.read_lines(stream):
        lines.put(line)
    lines.put(None)


def run_job(child: ChildProcess, job: CheckJob | TestJob) -> Checked | Tested | Failure:
    """Run a job that belongs to no segment and give its answer. Raises ChildDied."""
    try:
        child.send(job.to_json())
    except MessageError as error:
        return Failure("bug", f"the job cannot be sent to the training process: {error}")
    while True:
        event = child.event(timeout=1.0)
        if isinstance(event, Checked | Tested | Failure):
            return event
        if isinstance(event, SegmentResult | SegmentStopped):
            return Failure("bug", f"unexpected answer {event}")


_SECRETS_OF_THE_SUPERVISOR = ("TMSEARCH_STORAGE", "PGPASSWORD")
