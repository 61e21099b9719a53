"""Text for people: durations, sizes, and other people's text escaped for a line, Markdown, a cell or a file name."""

from __future__ import annotations

import re

LONGEST = 300  # characters of a text in a note
LONGEST_CELL = 500  # characters of a text in a spreadsheet's cell

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}  # seconds

# Control characters, marks that change the direction of writing, characters without width, and surrogate halves.
# Right-to-left letters and the zero-width joiner of emoji are not among them.
INVISIBLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff\ufff9-\ufffb]"
)
# The markup of Markdown and HTML within a line. An underscore inside a word is plain text in both.
_MARKUP = re.compile(r"[&<>*`|\\\[\]~#@]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
# GitHub turns addresses into links after it has resolved escapes: a word joiner breaks them up.
_ADDRESS = re.compile(r"(?i)(?<=[a-z]):(?=//)|(?<=www)(?=\.)|@")
_WORD_JOINER = "\u2060"


def clock_time(seconds: float) -> str:
    """Seconds as `0:42` or `1:02:03`, for tables and sums."""
    minutes, seconds_of_minute = divmod(round(seconds), 60)
    hours, minutes_of_hour = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes_of_hour:02d}:{seconds_of_minute:02d}"
    return f"{minutes}:{seconds_of_minute:02d}"


def parse_duration(text: str) -> float | None:
    """90, 90s, 5m, 2h, 1d -> seconds above 0; None for any other text."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", text.strip())
    if not match or not float(match[1]):
        return None
    return float(match[1]) * _UNITS[match[2]]


def duration(seconds: float) -> str:
    """Seconds rounded for a sentence: `42 s`, `7 min`, `3.4 h`, `34 h`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    digits = 1 if seconds < 36_000 else 0
    return f"{seconds / 3600:.{digits}f} h"


def estimated_duration(seconds: float) -> str:
    """An estimate with no more digits than it deserves: `about 40 s`, `about 12 min`."""
    if seconds < 90:
        return f"about {max(10, round(seconds, -1)):.0f} s"
    return f"about {duration(seconds)}"


def duration_range(low: float, high: float) -> str:
    """A range of seconds in one unit, with no more digits than it deserves: `8 to 20 min`, `up to 40 s`."""
    if high < 90:
        unit, divisor, digits = "s", 1, -1
    elif high < 5400:
        unit, divisor, digits = "min", 60, 0
    else:
        unit, divisor, digits = "h", 3600, 1 if high < 36_000 else 0
    least, most = (f"{round(seconds / divisor, digits):.{max(0, digits)}f}" for seconds in (low, high))
    if not float(most):
        return "moments"
    return f"up to {most} {unit}" if not float(least) else f"{least} to {most} {unit}"


def file_size(count: float, digits: int = 1) -> str:
    """Bytes as `512 bytes`, `38 kB`, `3.2 MB` or `18.5 GB`, which has `digits` of them."""
    if count < 1000:
        return f"{count:.0f} bytes"
    if count < 1_000_000:
        return f"{count / 1000:.0f} kB"
    if count < 1_000_000_000:
        return f"{count / 1e6:.1f} MB"
    return f"{count / 1e9:.{digits}f} GB"


def first_line(error: BaseException, longest: int = 1000) -> str:
    """The first line of an error's message in at most `longest` characters; its class where it has no message."""
    lines = str(error).strip().splitlines()
    line = lines[0] if lines else type(error).__name__
    return line if len(line) <= longest else f"{line[: longest - 3]}..."


def one_line(text: str, longest: int = LONGEST) -> str:
    """`text` on one line of at most `longest` characters, with invisible characters as escapes such as `\\u202e`."""
    head = text[: 4 * longest + 100]
    line = INVISIBLE.sub(lambda match: f"\\u{ord(match[0]):04x}", " ".join(head.split()))
    if len(line) <= longest and head == text:
        return line
    return f"{line[:longest]}... ({len(text)} characters)"


def markdown(text: str, longest: int = LONGEST) -> str:
    """`text` as plain text within a line, table cell or heading of any Markdown dialect.

    Markup becomes character references, which every dialect reads alike, and no address becomes a link.
    """
    line = _ADDRESS.sub(lambda match: match[0] + _WORD_JOINER, one_line(text, longest))
    return _MARKUP.sub(lambda match: f"&#{ord(match[0])};", line)


def csv_cell(text: str) -> str:
    """`text` as a spreadsheet's cell; what would be read as a formula gets an apostrophe in front."""
    line = one_line(text, LONGEST_CELL)
    return f"'{line}" if line[:1] in ("=", "+", "-", "@") else line


def file_name(text: str, longest: int = 48) -> str:
    """`text` as a part of a file's name on any system: letters, digits, dots, dashes and underscores."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text)[-longest:].strip("._-") or "clip"
