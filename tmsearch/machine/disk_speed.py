"""How fast a disk takes what a study writes: large files, such as checkpoints, and a database's small commits."""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

_BLOCK = os.urandom(1 << 20)  # random: a file system that compresses would win with zeros
_SYNCED_BLOCKS = 4  # MiB written between two waits for the disk
_MOST_BLOCKS = 64  # MiB
_SECONDS = 1.0  # for each of the two measurements, as long as no single wait takes longer
_COMMITS = 20
_COMMIT_BYTES = 4096  # a page of SQLite's


@dataclass(frozen=True)
class DiskSpeed:
    """Of one folder's disk.

    Attributes:
        free_bytes: that this process may still write.
        bytes_per_second: of a large file that is waited for; None where there is no room to measure it.
        commit_seconds: the median time until a small change is on the disk; None likewise.
    """

    free_bytes: int
    bytes_per_second: float | None = None
    commit_seconds: float | None = None


def measure(folder: Path) -> DiskSpeed:
    """The free space and speed where `folder` lies, or would lie: of the nearest folder that exists.

    Writes at most 64 MiB into a file without a name, for two seconds or so.

    Raises:
        OSError: nothing can be written there.
    """
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < 4 * _MOST_BLOCKS * len(_BLOCK):
        with tempfile.TemporaryFile(dir=existing):
            return DiskSpeed(free)
    with tempfile.TemporaryFile(dir=existing, buffering=0) as file:
        rate = _write_rate(file.fileno())
        return DiskSpeed(free, rate, _commit_seconds(file.fileno()))


def _write_rate(descriptor: int) -> float:
    started = time.perf_counter()
    written = 0
    seconds = 0.0
    while written < _MOST_BLOCKS * len(_BLOCK) and seconds < _SECONDS:
        for _ in range(_SYNCED_BLOCKS):
            written += os.write(descriptor, _BLOCK)
        os.fsync(descriptor)
        seconds = time.perf_counter() - started
    return written / seconds


def _commit_seconds(descriptor: int) -> float:
    times: list[float] = []
    while len(times) < _COMMITS and sum(times) < _SECONDS:
        started = time.perf_counter()
        os.write(descriptor, _BLOCK[:_COMMIT_BYTES])
        os.fsync(descriptor)
        times.append(time.perf_counter() - started)
    return statistics.median(times)
