"""The process that trains: started, spoken to in JSON lines, and ended, without importing what it imports."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

# How long a child that was told to stop may take to finish its step and save, seconds.
STOP_PATIENCE = 600.0


# How a process is told to go, by a person, a scheduler or a machine that shuts down: no fault of what it did.
TOLD_TO_END = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class ChildDied(Exception):
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


class Child:
    """A warm child: one process that runs job after job. Started at the first job, again after a death.

    `environment` holds defaults: what a person set stands.
    """

    def __init__(
        self, command: Sequence[str], log: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        self._command = list(command)
        self._environment = dict(environment or {})
        self._log = log
        self._process: subprocess.Popen[str] | None = None
        self._events: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self.said: collections.deque[str] = collections.deque(maxlen=200)

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def log_to(self, log: Path) -> None:
        """Keep what the child says on stderr in this file from its next start on, and what it said till now."""
        self._log = log

    def send(self, message: Mapping[str, Any]) -> None:
        """One job or one word to the child; starts it if it does not run."""
        if self._process is None or self._process.poll() is not None:
            self._start()
        assert self._process is not None
        assert self._process.stdin is not None
        # A child that died under the message is found dead by the next `event`.
        with contextlib.suppress(OSError):
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()

    def event(self, timeout: float) -> dict[str, Any] | None:
        """The child's next message; None if none came within `timeout` seconds; raises ChildDied."""
        try:
            event = self._events.get(timeout=timeout)
        except queue.Empty:
            return None
        if event is not None:
            return event
        assert self._process is not None
        code = self._process.wait()
        self._process = None
        raise ChildDied(code)

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
        self._events = queue.Queue()
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
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
        threading.Thread(target=self._listen, args=(self._process.stdout, self._events), daemon=True).start()
        threading.Thread(target=self._overhear, args=(self._process.stderr,), daemon=True).start()

    def _listen(self, stream: IO[str], events: queue.Queue[dict[str, Any] | None]) -> None:
        for line in stream:
            try:
                event = json.loads(line)
            except ValueError:
                self._keep(line)
                continue
            if isinstance(event, dict):
                events.put(event)
        events.put(None)

    def _overhear(self, stream: IO[str]) -> None:
        for line in stream:
            self._keep(line)

    def _keep(self, line: str) -> None:
        self.said.append(line.rstrip("\n"))
        if self._log is not None:
            with contextlib.suppress(OSError), self._log.open("a", encoding="utf-8") as log:
                log.write(line)


def each_event(child: Child, job: Mapping[str, Any], on_event: Callable[[Mapping[str, Any]], None]) -> dict[str, Any]:
    """Run a job that belongs to no segment (a check of data and models) and give its last word."""
    child.send(job)
    while True:
        event = child.event(timeout=1.0)
        if event is None:
            continue
        if event.get("event") in ("progress", "fact", "limit"):
            on_event(event)
            continue
        return event


_SECRETS_OF_THE_SUPERVISOR = ("TMSEARCH_STORAGE", "PGPASSWORD")
