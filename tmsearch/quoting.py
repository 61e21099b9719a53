"""Other people's text for Markdown and spreadsheets: shown as text, whatever it holds."""

from __future__ import annotations

import re

LONGEST = 300  # characters of a text in a note
LONGEST_CELL = 500  # in a table
# Control characters, and those that turn the direction of what stands around them.
_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")
# What Markdown and HTML are made of within a line; an underscore inside a word is none of it.
_MARKS = re.compile(r"[&<>*`|\\\[\]~#@]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
# GitHub's Markdown looks for addresses in finished text, behind any escape: a character without width parts them.
_ADDRESS = re.compile(r"(?i)(?<=[a-z]):(?=//)|(?<=www)(?=\.)|@")
_JOINER = "\u2060"


def one_line(text: str, longest: int = LONGEST) -> str:
    """White space as single spaces, what can't be seen as its code, and no more characters than `longest`."""
    joined = " ".join(text[: 4 * longest + 100].split())
    seen = _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", joined)
    if len(seen) <= longest and len(text) <= 4 * longest + 100:
        return seen
    return f"{seen[:longest]}... ({len(text)} characters)"


def markdown(text: str, longest: int = LONGEST) -> str:
    """As text within a line, a cell or a heading of Markdown: its marks as character references, which need no escape
    and are the same to every Markdown. No address in it becomes a link."""
    line = _ADDRESS.sub(lambda found: found[0] + _JOINER, one_line(text, longest))
    return _MARKS.sub(lambda found: f"&#{ord(found[0])};", line)


def cell(text: str) -> str:
    """As a spreadsheet's cell: one that it would take for a formula begins with an apostrophe."""
    line = one_line(text, LONGEST_CELL)
    return f"'{line}" if line[:1] in ("=", "+", "-", "@") else line


def file_name(text: str, longest: int = 48) -> str:
    """As a part of a file's name, anywhere: letters, digits, dot, dash and underscore."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text)[-longest:].strip("._-") or "clip"
