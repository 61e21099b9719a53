"""Workers on this machine: one a GPU, or side by side on its cores."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from search.execution.launchers import CORES_VARIABLE, LOCATION_VARIABLE, PARENT_VARIABLE

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them. Asks the driver's files, not torch."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [one.strip() for one in named.split(",") if one.strip() and one.strip() != "-1"]
    return [str(number) for number, _ in enumerate(sorted(Path("/proc/driver/nvidia/gpus").glob("*")))]


def cores() -> list[int]:
    """The cores that this process may use."""
    return sorted(os.sched_getaffinity(0))


def exit_with_parent() -> None:
    """In a worker that a crew started: save and leave when the crew is killed; the next crew finds nobody at work.

    Linux only; elsewhere such a worker finishes the study by itself.
    """
    parent = os.environ.pop(PARENT_VARIABLE, None)
    if parent is None or sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):  # it was gone before we could ask
        os.kill(os.getpid(), signal.SIGTERM)


def pin_to_own_cores() -> None:
    """In a worker that a crew started: use the cores that are its own, with all that it starts."""
    named = os.environ.pop(CORES_VARIABLE, None)
    if named:
        os.sched_setaffinity(0, {int(core) for core in named.split(",")})


class LocalLauncher:
    """`command` starts a worker; its words go to `logs`/worker-SEAT.log."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], logs: Path, workers: int) -> None:
        self._command = list(command)
        self._environment = dict(environment)
        self._logs = logs
        self._workers = workers
        logs.mkdir(parents=True, exist_ok=True)

    def start(self, seat: int) -> Process:
        where = self._pinned(seat)
        return Process(self._command, {**os.environ, **self._environment, **where}, self._logs / f"worker-{seat}.log")

    def close(self) -> None:
        """Nothing is held."""

    def _pinned(self, seat: int) -> dict[str, str]:
        """A GPU of its own, in turn where there are fewer than workers; without one, its share of the cores."""
        with_parent = {PARENT_VARIABLE: str(os.getpid())}
        cards = gpus()
        if cards:
            card = cards[seat % len(cards)]
            return {**with_parent, "CUDA_VISIBLE_DEVICES": card, LOCATION_VARIABLE: f"GPU {card}"}
        there = cores()
        share = max(1, len(there) // self._workers)
        mine = [there[(seat * share + place) % len(there)] for place in range(share)]
        named = ",".join(str(core) for core in mine)
        return {**with_parent, CORES_VARIABLE: named, LOCATION_VARIABLE: f"core{'s' if len(mine) > 1 else ''} {named}"}


class Process:
    """A worker as a process of this machine."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self._log = log
        self._from = log.stat().st_size if log.exists() else 0
        with log.open("ab") as file:
            # In a session of its own: Ctrl-C reaches us alone, and we say to it what that means.
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment, start_new_session=True
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def poll(self) -> int | None:
        return self._process.poll()

    def stop(self) -> None:
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def last_line(self) -> str:
        with contextlib.suppress(OSError), self._log.open("rb") as file:
            file.seek(self._from)
            said = file.read().decode("utf-8", "replace").split("\n")
            return next((line.strip() for line in reversed(said) if line.strip()), "")
        return ""
