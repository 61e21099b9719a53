"""What a report takes from the ledger, as a record: read without the libraries that it is collected with."""

from __future__ import annotations

from dataclasses import dataclass

from search.records import Configuration, StudyRecord
from tmsearch.report.records import StudyPage
from tmsearch.trial.facts import StudyFacts


@dataclass(frozen=True)
class StudyFigures:
    """All of a study that its page is made of, but the clips: without the other configurations' errors by clip."""

    page: StudyPage
    record: StudyRecord
    facts: StudyFacts
    best: Configuration | None
