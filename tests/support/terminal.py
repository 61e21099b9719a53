"""A small terminal emulator: the lines on a screen after a program has written to it."""

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
    """Rows of `width` characters that wrap as on a terminal; `wrapped` counts how often that happened."""

    def __init__(self, width):
        self.width = width
        self.wrapped = 0
        self.rows = [""]
        self.row = 0
        self.column = 0

    def write(self, text):
        position = 0
        while position < len(text):
            control = _CONTROL.match(text, position)
            if control:
                self._control(control[1], control[2])
                position = control.end()
            else:
                self._put(text[position])
                position += 1
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
            self.row += 1
            self.column = 0
        elif char >= " ":
            if self.column == self.width:
                self.row += 1
                self.column = 0
                self.wrapped += 1
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
    """(exit code, output) of `tmsearch` on a pseudo-terminal; `keys(output)` returns what to type, once."""
    supervisor, terminal = pty.openpty()
    ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "tmsearch", *words], cwd=folder, stdin=terminal, stdout=terminal, stderr=terminal,
        env=environment(folder, **{"TERM": "xterm-256color", **more}), start_new_session=True, close_fds=True,
        preexec_fn=lambda: ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(terminal)
    written = ""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if select.select([supervisor], [], [], 0.1)[0]:
            try:
                written += os.read(supervisor, 65536).decode("utf-8", "replace")
            except OSError:
                break
        if keys and (typed := keys(written)):
            os.write(supervisor, typed)
            keys = None
    os.close(supervisor)
    return process.wait(timeout=10), written
