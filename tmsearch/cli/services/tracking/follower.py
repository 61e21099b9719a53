"""Beside the training: a thread and a process for each tracker, which mirrors what is committed."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from search import platforms
from search.errors import StorageUnavailableError, first_line
from search.execution.child_process import ChildExitError, ChildProcess
from search.execution.wire import MessageError
from tmsearch import job_server
from tmsearch.tracking import choice
from tmsearch.tracking.memory import Memory, memory_file
from tmsearch.tracking.tracker import TrackedRun

Runs = Callable[[], Sequence[TrackedRun]]
# Without a sign of life from a tracker's process it is ended, and the next round tries again. At a low priority
# beside a training that fills all cores it is slow, and nobody waits; at the end somebody does.
SILENCE_SECONDS = 600.0
CLOSING_SECONDS = 120.0
ARTIFACT_SECONDS = 3600.0  # the same while a model may be on its way
HURRY_SECONDS = 10.0  # for the last round of a person who wants to leave
_POLL_SECONDS = 0.2


@dataclasses.dataclass(frozen=True)
class Following:
    """What the trackers follow.

    `folder` is the study's or the model's. `runs` gives all runs as they are now. `notice` shows a line to a person.
    `hurry` says whether that person wants to leave. `every` is for runs that change without a word, in seconds.
    """

    folder: Path
    runs: Runs
    notice: Callable[[str], None]
    hurry: Callable[[], bool]
    every: float | None = None


class TrackerFollower:
    """Keeps one tracker up to date. `wake` tells that something was committed; `close` does the last round."""

    def __init__(self, name: str, following: Following) -> None:
        self._name = name
        self._following = following
        self._folder = following.folder / choice.FOLDER
        self._memory = Memory(memory_file(self._folder, name))
        environment = {"OMP_NUM_THREADS": "1", **choice.environment(name, following.folder)}
        command = job_server.command("tmsearch.tracking", name, str(self._folder))
        self._child = ChildProcess(command, self._folder / f"{name}.log", environment)
        self._due = threading.Event()
        self._closing_since = math.inf  # time.monotonic()
        self._has_reported = False
        self._lock: int | None = None  # descriptor of a file that one process of a study has locked
        self._deadline = math.inf  # time.monotonic() from which a person who leaves is kept no longer
        self._thread = threading.Thread(target=self._run, name=f"tracker {name}", daemon=True)

    def start(self) -> None:
        """Start the thread; its first round catches up with what earlier commands left."""
        self._due.set()
        self._thread.start()

    def wake(self) -> None:
        """Tell that something was committed."""
        self._due.set()

    def close(self) -> None:
        """Mirror what remains, and end thread and process."""
        self._closing_since = time.monotonic()
        self._due.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while True:
                self._due.wait(self._following.every)
                self._due.clear()
                closing = self._closing_since < math.inf
                is_complete = self._do_round()
                if closing or (not is_complete and self._closing_since < math.inf):
                    return
        finally:
            self._child.close()
            if self._lock is not None:
                os.close(self._lock)

    def _do_round(self) -> bool:
        """Mirror run after run; the first that fails ends the round: what ails the tracker would ail the others."""
        try:
            runs = [run for run in self._following.runs() if self._has_news(run)]
            for run in runs:
                if not self._has_turn() or self._is_late():
                    return False
                self._mirror(run)
        except (StorageUnavailableError, OSError, MessageError, ChildExitError, _TrackerError) as error:
            self._child.kill()
            self._report(first_line(error))
            return False
        return True

    def _has_news(self, run: TrackedRun) -> bool:
        return (run.is_final and not run.ended) or self._memory.signature(run.id) != run.signature

    def _has_turn(self) -> bool:
        """Whether this process mirrors the study: one at a time does, and another one once it has ended."""
        if self._lock is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._folder / f".{self._name}.lock", os.O_RDWR | os.O_CREAT, 0o666)
            try:
                platforms.lock(descriptor)
            except BlockingIOError:
                os.close(descriptor)
                return False
            except OSError:  # a file system without locks: two commands at once on one study are rare
                pass
            self._lock = descriptor
        return True

    def _mirror(self, run: TrackedRun) -> None:
        """Raises what the process's answer, or its silence, amounts to."""
        self._child.send(dataclasses.asdict(run))
        last_sign = time.monotonic()
        while not self._is_silent(last_sign, run):
            answer = self._child.receive(_POLL_SECONDS)
            if answer is None:
                if self._is_late():
                    raise _TrackerError("not waited for, as you want to leave")
            elif answer["event"] == "alive":
                last_sign = time.monotonic()
            elif answer["event"] == "mirrored":
                return
            else:
                raise _TrackerError(str(answer["reason"]))
        raise _TrackerError("its client does not answer")

    def _is_silent(self, last_sign: float, run: TrackedRun) -> bool:
        now = time.monotonic()
        if run.artifact:
            return now - last_sign > ARTIFACT_SECONDS
        since_close = now - max(last_sign, self._closing_since)
        return now - last_sign > SILENCE_SECONDS or since_close > CLOSING_SECONDS

    def _is_late(self) -> bool:
        if not self._following.hurry():
            return False
        self._deadline = min(self._deadline, time.monotonic() + HURRY_SECONDS)
        return time.monotonic() >= self._deadline

    def _report(self, reason: str) -> None:
        """Once: a tracker that is away would fill the terminal."""
        if not self._has_reported:
            self._has_reported = True
            log = self._folder / f"{self._name}.log"
            self._following.notice(f"{self._name} is not up to date: {reason}; it is caught up later, see {log}")


class _TrackerError(Exception):
    """A tracker's client failed or hung."""


@contextlib.contextmanager
def followed(names: Sequence[str], following: Following) -> Iterator[Callable[[], None]]:
    """Trackers follow within the block, and are caught up at its end; gives a function that wakes them."""
    followers = [TrackerFollower(name, following) for name in names]
    for follower in followers:
        follower.start()

    def wake() -> None:
        for follower in followers:
            follower.wake()

    try:
        yield wake
    finally:
        for follower in followers:
            follower.close()
