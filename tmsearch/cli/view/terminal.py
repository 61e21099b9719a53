"""Printing lines: in colour on a terminal, as plain text into a pipe."""

from __future__ import annotations

import codecs
import io
import json
import os
import shutil
import sys
from collections.abc import Iterable
from typing import Any

COLUMNS = 80  # of a pipe

# One plain character for one that an ASCII terminal lacks: ellipses, dashes, signs, and rich's bars.
_PLAIN = str.maketrans("\u2026\u2013\u2014\xd7\u2192\xb7\u2212\u2500\u2501\u2578\u257a", "~--x>.-----")

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


def print_line(line: str) -> None:
    """Print a line at once, also into a pipe."""
    print(line, flush=True)


def replace_unprintable() -> None:
    """Print what the terminal's encoding lacks by its number or a plain likeness instead of failing."""
    codecs.register_error("tmsearch-plain", _plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="tmsearch-plain")


def _plain(error: UnicodeError) -> tuple[str | bytes, int]:
    assert isinstance(error, UnicodeEncodeError)
    lacking = error.object[error.start : error.end].translate(_PLAIN)
    return lacking.encode("ascii", "backslashreplace").decode("ascii"), error.end


def print_json(value: Any) -> None:
    """Print standard JSON, without NaN; in ASCII where the stream takes no other characters."""
    is_unicode = (sys.stdout.encoding or "").lower().startswith("utf")
    print(json.dumps(value, indent=2, ensure_ascii=not is_unicode, allow_nan=False))


def print_file(text: str) -> None:
    """Print what is to be a file: in UTF-8, as files are, whatever the terminal's encoding."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")
    print(text, end="")
