"""Whether a checkpoint is worth its time: saved only where going back to it is cheaper than training again.

Free of torch, so that a plan can say beforehand which rungs will be saved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

# A kill costs at most a minute of training, unless saving takes so long that it would cost more than SHARE.
SAVE_SECONDS = 60.0
# Of a training's seconds, what its checkpoints may cost. Each pays for itself by the steps since the one before.
SHARE = 0.05
# Assumed until this process has measured its own disk, in bytes a second: one NVMe drive through its file system,
# beside a SHA-256 of some 2 GB/s on one core; a copy through pinned memory over PCIe 4; one within a CPU's memory.
WRITE_RATE = 1.0e9
READ_RATE = 1.5e9
PINNED_RATE = 2.0e10
MEMORY_RATE = 4.0e9
FILE_SECONDS = 0.01  # of a checkpoint of no size: five files created, synced and renamed


@dataclass(frozen=True)
class Rates:
    """How fast checkpoints are copied, written and read, in bytes a second.

    `is_beside`: copying and writing leave the processor that trains alone, as on a GPU; a CPU loses their seconds.
    """

    is_beside: bool
    write: float = WRITE_RATE
    read: float = READ_RATE
    copy: float | None = None  # None: PINNED_RATE on a GPU, else MEMORY_RATE

    def measured(self, size: int, copy_seconds: float, write_seconds: float) -> Rates:
        """The rates after a checkpoint of `size` bytes took so long."""
        written = max(write_seconds - FILE_SECONDS, write_seconds / 2)
        return replace(self, copy=size / max(copy_seconds, 1e-9), write=size / max(written, 1e-9))

    def copy_seconds(self, size: int) -> float:
        """Of `size` bytes, into the host's memory."""
        return size / (self.copy or (PINNED_RATE if self.is_beside else MEMORY_RATE))

    def write_seconds(self, size: int) -> float:
        """Of `size` bytes, until they are on the disk."""
        return FILE_SECONDS + size / self.write

    def lost_seconds(self, size: int) -> float:
        """What the training loses by a checkpoint of `size` bytes."""
        return self.copy_seconds(size) + (0.0 if self.is_beside else self.write_seconds(size))

    def total_seconds(self, size: int) -> float:
        """From the training's last step to a checkpoint on the disk."""
        return self.copy_seconds(size) + self.write_seconds(size)


def is_cheaper(steps: int, step_seconds: float, size: int, rates: Rates) -> bool:
    """Whether `steps` take longer to train again than their checkpoint takes to be written and read."""
    return rates.write_seconds(size) + size / rates.read < steps * step_seconds


def is_worthwhile(steps: int, step_seconds: float, size: int, rates: Rates) -> bool:
    """Whether a checkpoint is saved where a training pauses.

    Args:
        steps: Trained since the last checkpoint, which are trained again without this one.
        step_seconds: Of a step.
        size: Of the checkpoint, in bytes.
        rates: Of this machine.
    """
    is_affordable = rates.lost_seconds(size) <= SHARE * steps * step_seconds
    return is_affordable and is_cheaper(steps, step_seconds, size, rates)


def is_due(seconds: float, interval: float, size: int, rates: Rates) -> bool:
    """Whether a running training saves a checkpoint against a kill, `seconds` after the one before.

    Every `interval` seconds, and less often where saving would keep the disk or the CPU busy for more than SHARE.
    """
    return seconds >= max(interval, rates.total_seconds(size) / SHARE)


def saved_rungs(rungs: Sequence[int], step_seconds: float, size: int, rates: Rates) -> list[int]:
    """The rungs whose checkpoints are worth saving; nothing goes on from the last one."""
    saved: list[int] = []
    for rung in rungs[:-1]:
        start = saved[-1] if saved else 0
        if is_worthwhile(rung - start, step_seconds, size, rates):
            saved.append(rung)
    return saved
