"""Which process holds a lease, and whether it is known to be dead."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _started(pid: int) -> str | None:
    """When process `pid` started, in clock ticks since boot (field 22 of /proc/PID/stat); None if there is none."""
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    # A zombie has ended; only its parent has not collected it yet.
    return None if len(fields) < 20 or fields[0] == "Z" else fields[19]


def _machine() -> str:
    """Identifies a machine, or a container on it: process ids are comparable only within one."""
    boot = _read("/proc/sys/kernel/random/boot_id").strip()[:8]
    try:
        namespace = os.readlink("/proc/self/ns/pid").strip("pid:[]")
    except OSError:
        namespace = ""
    return f"{boot}.{namespace}"


@dataclass(frozen=True)
class ProcessId:
    """One process on one machine; the time of its start is part of it, since process ids are reused."""

    host: str
    machine: str
    pid: int
    started: str

    @classmethod
    def current(cls) -> ProcessId:
        """This process."""
        return cls(socket.gethostname(), _machine(), os.getpid(), _started(os.getpid()) or "")

    @classmethod
    def parse(cls, text: str) -> ProcessId | None:
        """What `str` wrote; None if it is something else."""
        parts = text.split("|")
        if len(parts) != 4 or not parts[2].isdigit():
            return None
        return cls(parts[0], parts[1], int(parts[2]), parts[3])

    def __str__(self) -> str:
        return f"{self.host}|{self.machine}|{self.pid}|{self.started}"

    @property
    def display_name(self) -> str:
        """Host and process id, for people."""
        return f"{self.host}:{self.pid}"

    def known_dead(self) -> bool:
        """True only if this process ran on this machine and has ended. On other machines only the lease can tell."""
        if not Path("/proc/self/stat").exists() or self.machine != _machine() or self.host != socket.gethostname():
            return False
        return _started(self.pid) != self.started
