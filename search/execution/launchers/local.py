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

from search.execution import log_file
from search.execution.child_process import KILL_SECONDS
from search.execution.launchers import (
    CORES_VARIABLE,
    GPU_WORKERS_VARIABLE,
    LOCATION_VARIABLE,
    PARENT_VARIABLE,
    last_line,
)
from search.execution.launchers.gpus import gpus, sharing
from search.platforms import apart, ask_to_exit, pin_to_cores, usable_cores

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def exit_with_parent() -> None:
    """In a worker of a pool: save and exit when the pool is killed, so that the next pool finds no worker running.

    Linux only; elsewhere such a worker finishes the study by itself.
    """
    parent = os.environ.pop(PARENT_VARIABLE, None)
    if parent is None or sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):  # it ended before the call
        os.kill(os.getpid(), signal.SIGTERM)


def pin_to_own_cores() -> None:
    """In a worker of a pool: use the cores assigned to it, with all processes that it starts."""
    assigned = os.environ.pop(CORES_VARIABLE, None)
    if assigned:
        pin_to_cores([int(core) for core in assigned.split(",")])


class LocalLauncher:
    """Starts workers by `command`; the output of each goes to `logs`/worker-SLOT.log."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], logs: Path, workers: int) -> None:
        self._command = list(command)
        self._environment = dict(environment)
        self._logs = logs
        self._workers = workers
        logs.mkdir(parents=True, exist_ok=True)

    def start(self, slot: int) -> LocalWorker:
        environment = {**os.environ, **self._environment, **self._assignment(slot)}
        return LocalWorker(self._command, environment, self._logs / f"worker-{slot}.log")

    def close(self) -> None:
        """Nothing is held."""

    def _assignment(self, slot: int) -> dict[str, str]:
        """Variables that assign the worker a GPU, or its share of the cores on a machine without GPUs."""
        parent = {PARENT_VARIABLE: str(os.getpid())}
        cards = gpus()
        if cards:
            card = cards[slot % len(cards)]
            workers = sharing(self._workers, len(cards))[slot % len(cards)]
            return {
                **parent,
                "CUDA_VISIBLE_DEVICES": card,
                LOCATION_VARIABLE: f"GPU {card}",
                GPU_WORKERS_VARIABLE: str(max(1, workers)),
            }
        available = usable_cores()
        share = max(1, len(available) // self._workers)
        assigned = [available[(slot * share + index) % len(available)] for index in range(share)]
        numbers = ",".join(str(core) for core in assigned)
        plural = "s" if len(assigned) > 1 else ""
        return {**parent, CORES_VARIABLE: numbers, LOCATION_VARIABLE: f"core{plural} {numbers}"}


class LocalWorker:
    """A worker as a process of this machine."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self._log = log
        with contextlib.suppress(OSError):
            log_file.limit(log)
        self._log_start = log.stat().st_size if log.exists() else 0  # bytes
        with log.open("ab") as file:
            # Ctrl-C reaches the pool alone, which tells its workers.
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment, **apart()
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def poll(self) -> int | None:
        return self._process.poll()

    def stop(self) -> None:
        ask_to_exit(self._process)

    def kill(self) -> None:
        with contextlib.suppress(OSError):
            self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # `poll` says when it has ended after all
            self._process.wait(timeout=KILL_SECONDS)

    def last_line(self) -> str:
        return last_line(log_file.end_of(self._log, self._log_start))
