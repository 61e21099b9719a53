"""Where in a person's input a value stands, and the one line that says what is wrong with it."""

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
    """`text` on one line, harmless to a terminal: control characters, line ends and bidi marks as escapes."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "replace").decode("ascii") for char in text
    )


def shortened(text: str, longest: int = _LONGEST_VALUE) -> str:
    return text if len(text) <= longest else text[: longest - 3] + "..."


def shown(value: Any) -> str:
    """A value as the file would have it, short and harmless."""
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 200:
        return "a number of more than 60 digits"
    return printable(shortened(value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)))


def nearest(name: str, legal: Iterable[str]) -> str | None:
    """The legal name that `name` may stand for: by likeness, or by initials (lr is learning_rate)."""
    names = list(legal)
    wanted = name.lower().replace("-", "_")[:_LONGEST_VALUE]
    close = difflib.get_close_matches(wanted, names, n=1, cutoff=0.6)
    if close:
        return close[0]
    initials = {"".join(word[0] for word in one.split("_") if word): one for one in reversed(names) if "_" in one}
    return initials.get(wanted)


def suggestion(name: str, legal: Iterable[str]) -> str:
    """`did you mean X?`, or all that is legal."""
    names = list(legal)
    near = nearest(name, names)
    return f"did you mean {near}?" if near else f"legal: {shortened(', '.join(names), _LONGEST_LIST)}"


@dataclass(frozen=True)
class Location:
    """A dotted key of a file. `typed` maps the keys that a `--set` gave to the words that the person typed."""

    source: str
    key: str = ""
    typed: Mapping[str, str] = field(default_factory=dict)

    def at(self, name: str | int) -> Location:
        """The place of an entry of this mapping (by name) or list (by number)."""
        short = f"[{name}]" if isinstance(name, int) else shortened(name)
        dot = "." if self.key and isinstance(name, str) else ""
        return Location(self.source, f"{self.key}{dot}{short}", self.typed)

    def blame(self, *names: str) -> Location:
        """Of several entries that contradict each other: one that a `--set` gave, else the last."""
        places = [self.at(name) for name in names]
        return next((place for place in places if place._override() is not None), places[-1])

    def _override(self) -> str | None:
        """The `--set` key that this place comes from: one above it, else one below it."""
        above = [key for key in self.typed if self.key == key or self.key.startswith((f"{key}.", f"{key}["))]
        below = [key for key in self.typed if self.key and key.startswith(f"{self.key}.")]
        return max(above, key=len) if above else next(iter(below), None)

    def error(self, problem: str) -> UserError:
        """The one line; `problem` says what is wrong and the fix."""
        override = self._override()
        if override is None:
            parts = [self.source, self.key]
        else:
            rest = self.key[len(override) :].lstrip(".") if len(self.key) > len(override) else ""
            parts = [f"--set {self.typed[override]}", rest]
        return UserError(printable(": ".join(part for part in [*parts, problem] if part)))
