"""What there is to be read, seen and heard of a study beside its numbers, and who makes it: the application's side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from search.records import Configuration


@dataclass(frozen=True)
class Exhibit:
    """A file that a dashboard shows in place; `mimetype` says how."""

    name: str
    mimetype: str
    content: bytes


@dataclass(frozen=True)
class Account:
    """Of a configuration that has ended: a note (Markdown) and its exhibits."""

    note: str
    exhibits: tuple[Exhibit, ...] = ()


class Curator(Protocol):
    """Asked in the order `begin`, then the others as often as needed, then `rest`; all by one thread."""

    value: str  # what the value of a configuration is called, where Optuna would say "Objective 0"

    def begin(self, history: Sequence[Configuration]) -> None:
        """A round of publishing begins, with the study as it is now."""

    def study(self) -> str:
        """The study's note, Markdown: the same each time."""

    def account(self, one: Configuration) -> Account:
        """Of a configuration that has ended: the same each time, so that a kill between two uploads leaves no trace."""

    def rest(self) -> None:
        """The round is over: let go of what was held for it."""
