"""Log files of processes: appended to in bounded space, and their ends read in bounded memory."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

LOG_BYTES = 10_000_000  # a log that is longer moves to NAME.1, in the place of the one before
_END_BYTES = 65_536  # of a log, in which its last line is looked for


def append(log: Path, text: str) -> None:
    """Append to the log; a disk that takes no more loses the text and stops nothing."""
    with contextlib.suppress(OSError):
        limit(log)
        with log.open("a", encoding="utf-8") as file:
            file.write(text)


def limit(log: Path) -> None:
    """Move a log that has reached LOG_BYTES aside. Raises OSError where that cannot be done."""
    if log.exists() and log.stat().st_size >= LOG_BYTES:
        log.replace(log.with_name(f"{log.name}.1"))


def end_of(log: Path, start: int = 0) -> str:
    """The end of the log, nothing from before byte `start`; empty where it cannot be read."""
    with contextlib.suppress(OSError), log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(min(size, max(start, size - _END_BYTES)))
        return file.read(_END_BYTES).decode("utf-8", "replace")
    return ""
