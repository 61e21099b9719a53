"""What there is to be read, seen and heard of a study beside its numbers, and who makes it: the application's side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from search.records import Configuration


@dataclass(frozen=True)
class Attachment:
    """A file that a dashboard shows in place; `mimetype` says how."""

    name: str
    mimetype: str
    content: bytes


@dataclass(frozen=True)
class Annotation:
    """Of a configuration that has ended: a note (Markdown) and its exhibits."""

    note: str
    attachments: tuple[Attachment, ...] = ()


class Annotator(Protocol):
    """Asked in the order `begin`, then the others as often as needed, then `rest`; all by one thread."""

    value: str  # what the value of a configuration is called, where Optuna would say "Objective 0"

    def open(self, history: Sequence[Configuration]) -> None:
        """A round of publishing begins, with the study as it is now."""

    def study(self) -> str:
        """The study's note, Markdown: the same each time."""

    def annotate(self, one: Configuration) -> Annotation:
        """Of a configuration that has ended: the same each time, so that a kill between two uploads leaves no trace."""

    def close(self) -> None:
        """The round is over: let go of what was held for it."""
