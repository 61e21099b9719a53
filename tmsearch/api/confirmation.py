"""What a confirmation came to, for a Python caller."""

from __future__ import annotations

from dataclasses import dataclass, field

from search import study as studies
from search.storage.database import Storage
from tmsearch.api.study import Study
from tmsearch.api.view import html
from tmsearch.cli.services import verdicts


@dataclass(frozen=True, repr=False)
class Confirmation:
    """Whether the winner of a search is real.

    Attributes:
        is_over: whether the answer is known; if not, the same call continues.
        told_apart: whether the winner is better than the default recipe by more than luck; None: not known.
        takes: the recipe to take, in words, which `Study.export` writes; None: not known.
        trial: its number in the search; None: not known, or a default recipe that is no trial.
        sentence: the answer in a sentence; empty as long as it is not known.
        study: the study of the confirmation's own trainings.
    """

    is_over: bool
    told_apart: bool | None
    takes: str | None
    trial: int | None
    sentence: str
    study: Study
    lines: tuple[str, ...] = field(default=(), compare=False)

    def __str__(self) -> str:
        return "\n".join(self.lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """The lines in a notebook."""
        return html.page([[(line, "")] for line in self.lines])


def confirmation_of(study: Study, storage: Storage) -> Confirmation:
    """What the confirmation `study` came to."""
    summary = studies.summarize(studies.open_study(storage, study.name))
    decision = verdicts.decide(summary)
    result = verdicts.verdict(summary) if decision is not None else None
    return Confirmation(
        is_over=verdicts.race_of(summary).over,
        told_apart=None if result is None else result.is_significant,
        takes=None if decision is None else decision.subject,
        trial=None if decision is None else decision.arm.trial,
        sentence="" if result is None else result.sentence(),
        study=study,
        lines=tuple(verdicts.verdict_lines(summary)),
    )
