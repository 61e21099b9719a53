"""Folders that nothing needs any more: taken out of the way at once, removed when there is time."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

_SUFFIX = ".discarded"


def size_of(folder: Path) -> int:
    """Bytes of all files below; 0 where there is no such folder."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # another worker may be removing it
            total += path.stat().st_size if path.is_file() else 0
    return total


def discard(folder: Path) -> None:
    """Rename it, so that nobody finds half of it; nothing happens where it is not there."""
    with contextlib.suppress(FileNotFoundError):
        try:
            folder.rename(folder.with_name(folder.name + _SUFFIX))
        except OSError:  # an earlier one was not removed yet
            shutil.rmtree(folder.with_name(folder.name + _SUFFIX), ignore_errors=True)
            os.rename(folder, folder.with_name(folder.name + _SUFFIX))


def clear_discarded(study_folder: Path) -> None:
    """Remove what was discarded, by whoever it was."""
    for path in study_folder.glob(f"trials/*/*{_SUFFIX}"):
        shutil.rmtree(path, ignore_errors=True)
