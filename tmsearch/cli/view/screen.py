"""A terminal with live lines below the printed ones, drawn by one thread alone."""

from __future__ import annotations

import contextlib
import io
import queue
import sys
import threading
import time
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from tmsearch.cli.view.live import LiveDisplay, ReflowCleanup

_REDRAW_SECONDS = 0.25
_DRAW_SECONDS = 1.0  # that a terminal may hold up whoever prints a line
_STOP_SECONDS = 10.0  # for the last lines to be drawn on a terminal that may be stuck


class LiveScreen:
    """Prints lines above live ones. Two threads that draw would erase each other's lines as the height changes.

    Args:
        console: of the terminal.
        lines_below: the live lines.
    """

    def __init__(self, console: Console, lines_below: LiveDisplay) -> None:
        self._console = console
        self._lines_below = lines_below
        self._live = Live(
            lines_below,
            console=console,
            transient=True,
            vertical_overflow="crop",
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._lines: queue.Queue[Text | threading.Event | None] = queue.Queue()  # None: the end; Event: redraw now
        self._thread = threading.Thread(target=self._draw, name="screen", daemon=True)
        self._redirected = contextlib.ExitStack()
        self.is_on = False

    def start(self) -> None:
        """Show the live lines. What others print goes through here from now on."""
        self.is_on = True
        printed = _PrintedLines(self, sys.stdout)
        complaints = _PrintedLines(self, sys.stderr)
        self._redirected.enter_context(contextlib.redirect_stdout(printed))
        self._redirected.enter_context(contextlib.redirect_stderr(complaints))
        self._redirected.callback(printed.finish)
        self._redirected.callback(complaints.finish)
        self._thread.start()

    def say(self, line: Text) -> None:
        """Print a line above the live ones; returns once it is drawn, or soon on a terminal that is stuck."""
        self._lines.put(line)
        self.refresh()

    def refresh(self) -> None:
        """Draw the live lines anew; returns once that is done, or soon on a terminal that is stuck."""
        drawn = threading.Event()
        self._lines.put(drawn)
        until = time.monotonic() + _DRAW_SECONDS
        while self._thread.is_alive() and time.monotonic() < until and not drawn.wait(_REDRAW_SECONDS):
            pass

    def stop(self) -> None:
        """Print the last lines and take the live ones away."""
        self.is_on = False
        self._redirected.close()
        self._lines.put(None)
        self._thread.join(_STOP_SECONDS)

    def _draw(self) -> None:
        """Everything that is written to the terminal while the live lines are shown."""
        with contextlib.suppress(OSError):  # the terminal is gone; the search continues
            self._live.start(refresh=True)
            self._console.push_render_hook(ReflowCleanup(self._lines_below, self._console))
            while self._draw_next():
                pass
            self._console.pop_render_hook()
            self._live.stop()
            self._console.file.flush()

    def _draw_next(self) -> bool:
        """Draw the next line, or the live lines where none comes; False at the end."""
        try:
            line = self._lines.get(timeout=_REDRAW_SECONDS)
        except queue.Empty:
            self._live.refresh()
            return True
        if isinstance(line, Text):
            self._console.print(line, soft_wrap=True)
        elif line is not None:
            self._live.refresh()
            line.set()
        return line is not None


class _PrintedLines(io.TextIOBase):
    """A stream whose lines are printed on the screen; rich writes to the stream that it replaces."""

    def __init__(self, screen: LiveScreen, replaced: TextIO) -> None:
        self._screen = screen
        self.rich_proxied_file = replaced
        self._line = ""

    def write(self, text: str) -> int:
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._screen.say(Text.from_ansi(line))
        return len(text)

    def finish(self) -> None:
        """Print the beginning of a line that was not completed."""
        if self._line:
            self.write("\n")

    def flush(self) -> None:
        """A line appears once it is complete."""

    def isatty(self) -> bool:
        return self.rich_proxied_file.isatty()

    def fileno(self) -> int:
        return self.rich_proxied_file.fileno()
