"""A study's report as a page: its figures from the ledger, its clips from the dataset, joined by the template."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from search import study
from search.storage.database import Storage, open_storage
from tmsearch.cli.services.report.apart import Call, call_here

if TYPE_CHECKING:
    from tmsearch.cli.services.report.records import StudyFigures


def page(storage: Storage, name: str, call: Call = call_here) -> bytes:
    """A study's page as HTML in UTF-8, of what the database and the study's folder hold now; raises UserError."""
    return b"".join(page_pieces(storage, name, call))


def page_pieces(storage: Storage, name: str, call: Call = call_here) -> Iterator[bytes]:
    """`page`, piece by piece: a page with sounds takes tens of megabytes.

    Args:
        storage: the study's.
        name: the study's.
        call: what collects the figures with: `call_apart` leaves neither the study's results nor Optuna in this
            process's memory.
    """
    figures = call(_figures, storage.whole_url, name)
    from tmsearch.cli.services.report import clips  # libraries of sound and pictures, not before those of the figures
    from tmsearch.data_quality import health
    from tmsearch.report.page import study_page

    ledger = study.open_study(storage, name)
    corpus, problem = clips.study_corpus(figures.record, figures.facts)
    scored = clips.scored_clips(ledger, figures, corpus, problem)
    return study_page(figures.page, scored, health.examine(corpus) if corpus else None, problem)


def _figures(url: str, name: str) -> StudyFigures:
    from tmsearch.cli.services.report.figures import collect

    return collect(open_storage(url), name)
