"""The audio files that a table names, found in a dataset's folder however its names are spelt.

The same name is one string of characters on a Mac (decomposed: NFD) and another in a table (composed: NFC); tables
from Windows separate folders by backslashes.
"""

from __future__ import annotations

import functools
import os
import unicodedata
from pathlib import Path


class AudioPaths:
    """Finds files below `root`, the dataset's folder.

    `boundary` is a folder that no path may lead out of, for a dataset of a stranger's; None: any file of this machine.
    """

    def __init__(self, root: Path, boundary: Path | None = None) -> None:
        self._real = functools.cache(_real)
        self._listing = functools.cache(_listing)
        self._root = _real(root)
        self._boundary = _real(boundary) if boundary else None
        self._outside: list[str] = []

    def find(self, folder: Path, name: str) -> tuple[Path, str]:
        """The file that a table in `folder` calls `name`, and why it must not be read; empty where it may be."""
        path = folder / name
        if not _exists(path):
            path = self._as_spelt(folder, name) or self._as_spelt(folder, name.replace("\\", "/")) or path
        place = _real(path) if path.is_symlink() else self._real(path.parent) / path.name
        if self._boundary and not place.is_relative_to(self._boundary):
            return path, "its path leads out of the dataset, which may only name files of its own"
        if not place.is_relative_to(self._root) and not self._boundary:
            self._outside.append(str(path))
        return path, ""

    def note(self) -> list[str]:
        """A remark on the files that lie outside the dataset's folder; empty without any."""
        if not self._outside:
            return []
        return [f"{len(self._outside)} audio files lie outside the dataset's folder, such as {self._outside[0]}"]

    def _as_spelt(self, folder: Path, name: str) -> Path | None:
        """The file of this name under any spelling of its characters; None where there is none, or more than one."""
        path = folder
        for part in Path(name).parts:
            if part in ("..", os.sep):
                path = path / part
                continue
            spellings = self._listing(path).get(unicodedata.normalize("NFC", part), ())
            if part in spellings:
                path = path / part
            elif len(spellings) == 1:
                path = path / spellings[0]
            else:
                return None
        return path


def _exists(path: Path) -> bool:
    try:
        return os.path.lexists(path)
    except ValueError:  # it holds a zero byte
        return False


def _real(path: Path) -> Path:
    try:
        return Path(os.path.realpath(path))
    except (OSError, ValueError):
        return path


def _listing(folder: Path) -> dict[str, tuple[str, ...]]:
    """The names in a folder by their composed form; empty where it cannot be listed."""
    names: dict[str, tuple[str, ...]] = {}
    try:
        for name in os.listdir(folder):
            composed = unicodedata.normalize("NFC", name)
            names[composed] = (*names.get(composed, ()), name)
    except (OSError, ValueError):
        return {}
    return names
