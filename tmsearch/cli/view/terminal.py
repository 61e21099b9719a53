"""Printing lines: in colour on a terminal, as plain text into a pipe."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable

COLUMNS = 80  # of a pipe

# A line in pieces of (text, rich style); the style may be empty.
StyledLine = list[tuple[str, str]]


def width() -> int:
    """Columns of the terminal; those of the variable COLUMNS, or 80, where there is none."""
    return max(20, shutil.get_terminal_size((COLUMNS, 24)).columns)


def can_redraw() -> bool:
    """Whether lines may be drawn over: on a terminal that can move its cursor, whatever FORCE_COLOR says."""
    return sys.stdout.isatty() and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")


def uses_color() -> bool:
    """Whether rich may have something to colour; for a plain pipe it is not even imported."""
    return sys.stdout.isatty() or bool(os.environ.get("FORCE_COLOR"))


def print_lines(lines: Iterable[StyledLine]) -> None:
    """Print lines, with their styles where there is colour."""
    if not uses_color():
        for line in lines:
            print("".join(text for text, _ in line).rstrip())
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    for line in lines:
        console.print(Text.assemble(*line))
