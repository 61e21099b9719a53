"""What a dashboard shows of a study beside its numbers, and who makes it: the application implements `Annotator`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from search.records import Configuration


@dataclass(frozen=True)
class Attachment:
    """A file that a dashboard shows in place; `mimetype` tells how."""

    name: str
    mimetype: str
    content: bytes


@dataclass(frozen=True)
class Annotation:
    """What belongs to a configuration that has ended: a note (Markdown) and its attachments."""

    note: str
    attachments: tuple[Attachment, ...] = ()


class Annotator(Protocol):
    """Called in the order `open`, then the others as often as needed, then `close`; all from one thread."""

    value_name: str  # what the value of a configuration is called, where Optuna would say "Objective 0"

    def open(self, history: Sequence[Configuration], keep_turn: Callable[[], object]) -> None:
        """Prepare a round of publishing, with the study as it is now.

        What takes longer than a second or two to make calls `keep_turn` about once a second meanwhile, so that no other
        worker takes the publisher for dead.
        """

    def study_note(self, study_id: int) -> str:
        """The study's note, Markdown: the same each time. A dashboard's addresses have Optuna's `study_id`."""

    def annotate(self, configuration: Configuration) -> Annotation:
        """The annotation of a configuration that has ended: the same each time, so that a round may be repeated."""

    def close(self) -> None:
        """End the round: release what was held for it."""


@runtime_checkable
class UpdatingAnnotator(Annotator, Protocol):
    """One whose notes depend on more of the study than their own configuration: they are written anew at its end."""

    def basis(self, configuration: Configuration) -> str:
        """What the note rests on beside its configuration, on one line: another basis makes another note."""
