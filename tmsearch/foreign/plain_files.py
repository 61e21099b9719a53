"""Files from elsewhere, read within bounds: plain ones of limited size.

Every fault is one line: a `ForeignFileError` whose message is the reason, to be put behind the name of the file.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from tmsearch.errors import TmsearchError

MOST_TEXT = 256 * 2**20  # bytes of a table or log; one of a million clips has about 200 MB


class ForeignFileError(TmsearchError):
    """A file from elsewhere that cannot be used; the message is the reason, without the file's name or the line."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.line = line

    def at(self, name: str) -> str:
        """The error in one line, behind the file's name and, where it is known, the line's number."""
        return f"{name}: {self}" if self.line is None else f"{name}:{self.line}: {self}"


def open_plain(path: Path) -> BinaryIO:
    """Opens a plain file; a pipe or device is refused instead of being waited for or read without end.

    Raises:
        ForeignFileError: It is not a plain file, or the path cannot be a file's.
        OSError: It is missing or cannot be opened.
    """
    try:
        # A pipe without a writer blocks in open() unless it is asked not to; Windows would read the file as text.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except ValueError:
        raise ForeignFileError("its path holds a zero byte") from None
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode):
        return open(descriptor, "rb")
    os.close(descriptor)
    raise ForeignFileError(f"{_kind(status.st_mode)}, not a plain file")


def read_bytes(path: Path, most_bytes: int) -> bytes:
    """The content of a plain file of at most `most_bytes`; its size is looked at before anything is read.

    Raises:
        ForeignFileError: It is not a plain file, or is larger.
        OSError: It is missing or cannot be read.
    """
    with open_plain(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most_bytes:
            raise ForeignFileError(f"too large: {size / 1e6:.0f} MB, at most {most_bytes / 1e6:.0f} MB are read")
        # Not more than was there a moment ago: files such as those of /proc say 0 and may have no end.
        return file.read(size)


def read_text(path: Path, most_bytes: int = MOST_TEXT) -> str:
    """The text of a plain file in UTF-8, without a byte order mark. Raises ForeignFileError for any fault."""
    try:
        return read_bytes(path, most_bytes).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ForeignFileError("not UTF-8; save it as UTF-8", line) from None
    except OSError as error:
        raise ForeignFileError(f"cannot be read: {error.strerror or error}") from None


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a folder"
    return "a pipe" if stat.S_ISFIFO(mode) else "a device"
