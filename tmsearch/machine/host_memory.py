"""The host's memory: what this process may use, and what of it is free."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_MEMORY = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")
# The limit of this process's group, what it uses, and the files of that which would be dropped: by cgroup version.
_CGROUP_FILES = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
)


@dataclass(frozen=True)
class HostMemory:
    """Bytes that this process may use, and those of them that nothing uses."""

    total: int
    free: int


def host_memory() -> HostMemory:
    """By /proc, and by the cgroup where it allows less; nothing is free where neither tells."""
    try:
        rows = dict(line.split(":", 1) for line in _MEMORY.read_text().splitlines())
        kibibytes = {name: int(rows[name].split()[0]) for name in ("MemTotal", "MemAvailable")}
    except (OSError, KeyError, ValueError, IndexError):
        return HostMemory(0, 0)
    total = kibibytes["MemTotal"] << 10
    free = kibibytes["MemAvailable"] << 10
    for names in _CGROUP_FILES:
        group = _cgroup_memory(*names)
        if group is not None and group.total < total:
            return HostMemory(group.total, min(free, group.free))
    return HostMemory(total, free)


def _cgroup_memory(limit: str, used: str, statistics: str, droppable: str) -> HostMemory | None:
    """What this process's cgroup allows; None where it has no limit, or there is no such cgroup."""
    try:
        total = int((_CGROUP / limit).read_text())
        occupied = int((_CGROUP / used).read_text())
        rows = dict(line.split() for line in (_CGROUP / statistics).read_text().splitlines())
        return HostMemory(total, max(0, total - occupied + int(rows.get(droppable, 0))))
    except (OSError, ValueError):
        return None
