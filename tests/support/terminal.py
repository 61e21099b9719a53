"""A terminal's screen, small: what stands on it after a program has written to it."""

import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from fcntl import ioctl

from tests.support.command import environment

_CONTROL = re.compile(r"\x1b\[(\??[\d;]*)([A-Za-z])")


class Screen:
    """Rows of `width` characters that wrap as a terminal's do; `wrapped` counts how often one did."""

    def __init__(self, width):
        self.width, self.wrapped = width, 0
        self.rows, self.row, self.column = [""], 0, 0

    def write(self, text):
        place = 0
        while place < len(text):
            found = _CONTROL.match(text, place)
            if found:
                self._control(found[1], found[2])
                place = found.end()
                continue
            self._put(text[place])
            place += 1
        return self

    def _control(self, numbers, kind):
        if kind == "A":
            self.row = max(0, self.row - int(numbers or 1))
        elif kind == "K":
            self.rows[self.row] = "" if numbers == "2" else self.rows[self.row][: self.column]

    def _put(self, char):
        if char == "\r":
            self.column = 0
        elif char == "\n":
            self.row, self.column = self.row + 1, 0
        elif char >= " ":
            if self.column == self.width:
                self.row, self.column, self.wrapped = self.row + 1, 0, self.wrapped + 1
            self._make_room()
            line = self.rows[self.row].ljust(self.column)
            self.rows[self.row] = line[: self.column] + char + line[self.column + 1 :]
            self.column += 1
        self._make_room()

    def _make_room(self):
        self.rows += [""] * (self.row + 1 - len(self.rows))

    @property
    def lines(self):
        return [row.rstrip() for row in self.rows if row.strip()]


def run_in_terminal(folder, *words, width=80, height=24, timeout=60, keys=None, **more):
    """(exit code, all that `tmsearch` wrote) on a pseudo-terminal; `keys(written)` says what is typed, once."""
    mine, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "tmsearch", *words], cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs,
        env=environment(folder, **{"TERM": "xterm-256color", **more}), start_new_session=True, close_fds=True,
        preexec_fn=lambda: ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(theirs)
    written, until = "", time.monotonic() + timeout
    while time.monotonic() < until:
        if select.select([mine], [], [], 0.1)[0]:
            try:
                written += os.read(mine, 65536).decode("utf-8", "replace")
            except OSError:
                break
        if keys and (typed := keys(written)):
            os.write(mine, typed)
            keys = None
    os.close(mine)
    return process.wait(timeout=10), written
