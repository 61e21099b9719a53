"""Where in a person's input a value stands, and the one-line error about it."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from search.errors import UserError

_LONGEST_VALUE = 60  # characters of a person's own text that an error repeats
_LONGEST_LIST = 800  # characters of legal names that an error lists


def printable(text: str) -> str:
    """`text` on one line and harmless to a terminal: control characters, line ends and bidi marks as escapes."""
    return text if text.isprintable() else "".join(map(_printable_char, text))


def _printable_char(char: str) -> str:
    if char.isprintable():
        return char
    return char.encode("unicode_escape", "replace").decode("ascii")


def shortened(text: str, longest: int = _LONGEST_VALUE) -> str:
    """`text`, cut to `longest` characters."""
    return text if len(text) <= longest else text[: longest - 3] + "..."


def shown(value: Any) -> str:
    """A value as the file would have it, short and printable."""
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 200:
        return "a number of more than 60 digits"
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    return printable(shortened(text))


def kind_of(value: Any) -> str:
    """`a list`, `a mapping`, or the value itself, for an error about something else that belongs there."""
    if isinstance(value, list):
        return "a list"
    return "a mapping" if isinstance(value, dict) else shown(value)


def nearest(name: str, legal: Iterable[str]) -> str | None:
    """The legal name that `name` may stand for: by likeness, or by initials (lr is learning_rate)."""
    names = list(legal)
    wanted = name.lower().replace("-", "_")[:_LONGEST_VALUE]
    close = difflib.get_close_matches(wanted, names, n=1, cutoff=0.6)
    if close:
        return close[0]
    for candidate in names:
        if "_" in candidate and wanted == "".join(word[:1] for word in candidate.split("_")):
            return candidate
    return None


def suggestion(name: str, legal: Iterable[str], word: str = "legal") -> str:
    """`did you mean X?`, or all that is legal, which `word` says."""
    names = list(legal)
    near = nearest(name, names)
    return f"did you mean {near}?" if near else f"{word}: {shortened(', '.join(names), _LONGEST_LIST)}"


@dataclass(frozen=True)
class Location:
    """A dotted key of a file. `typed` maps the keys that a `--set` gave to the words that the person typed."""

    source: str
    key: str = ""
    typed: Mapping[str, str] = field(default_factory=dict)

    def at(self, name: str | int) -> Location:
        """The location of an entry of this mapping (by name) or list (by number)."""
        if isinstance(name, int):
            key = f"{self.key}[{name}]"
        else:
            dot = "." if self.key else ""
            key = f"{self.key}{dot}{shortened(name)}"
        return Location(self.source, key, self.typed)

    def blame(self, *names: str) -> Location:
        """Of several entries that contradict each other: one that a `--set` gave, else the last."""
        for name in names:
            if self.at(name)._override() is not None:
                return self.at(name)
        return self.at(names[-1])

    def _override(self) -> str | None:
        """The `--set` key that this location comes from: the longest above it, else the first below it."""
        above = [key for key in self.typed if self.key == key or self.key.startswith((f"{key}.", f"{key}["))]
        if above:
            return max(above, key=len)
        return next((key for key in self.typed if self.key and key.startswith(f"{self.key}.")), None)

    def error(self, problem: str) -> UserError:
        """The one-line error; `problem` says what is wrong and how to fix it."""
        override = self._override()
        if override is None:
            parts = [self.source, self.key]
        else:
            below = self.key[len(override) :].lstrip(".")
            parts = [f"--set {self.typed[override]}", below]
        return UserError(printable(": ".join(filter(None, [*parts, problem]))))
