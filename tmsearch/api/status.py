"""How a study stands: numbers for a program, and the page that `tmsearch status` prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from search.study import Summary
from tmsearch.api.records import Trial, trial_of
from tmsearch.api.view import html
from tmsearch.cli.view import intervals
from tmsearch.cli.view.format import time_left
from tmsearch.cli.view.status_page import page_lines
from tmsearch.cli.view.terminal import StyledLine
from tmsearch.trial.facts import StudyFacts

WIDTH = 110  # columns of the page


@dataclass(frozen=True, repr=False)
class Status:
    """A study at one moment.

    Attributes:
        study: its name.
        storage: its database's URL, without a password.
        measure: what is minimised, as a person reads it: WER, CER, long WER or mean WER.
        total: how many configurations it is to have.
        judged: how many have a result.
        states: how many are in which state.
        has_ended: whether nothing is left to do.
        best: the best configuration so far; None without a result.
        seconds_spent: of training and evaluation.
        seconds_saved: what early stopping saved.
        seconds_left: an estimate with the workers that it has now, with one where it has none; None: not known.
        stopped: why it was stopped; None: it was not.
        workers: how many work on it now.
    """

    study: str
    storage: str
    measure: str
    total: int
    judged: int
    states: Mapping[str, int]
    has_ended: bool
    best: Trial | None
    seconds_spent: float
    seconds_saved: float
    seconds_left: float | None
    stopped: str | None
    workers: int
    page: tuple[StyledLine, ...] = field(default=(), compare=False)

    def __str__(self) -> str:
        return "\n".join("".join(text for text, _ in line).rstrip() for line in self.page)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """The page in a notebook."""
        return html.page(self.page)


def status_of(summary: Summary, storage: str) -> Status:
    """The status of a study in the storage of that name."""
    alive = sum(worker.alive for worker in summary.workers)
    left = None if summary.has_ended else time_left(summary, max(1, alive))
    return Status(
        study=summary.record.name,
        storage=storage,
        measure=summary.record.measure,
        total=summary.total,
        judged=summary.judged,
        states=summary.counts,
        has_ended=summary.has_ended,
        best=best_of(summary),
        seconds_spent=summary.spent,
        seconds_saved=summary.saved,
        seconds_left=None if left is None else left.seconds,
        stopped=summary.record.stop_reason,
        workers=alive,
        page=tuple(page_lines(summary, WIDTH)),
    )


def best_of(summary: Summary) -> Trial | None:
    """The best configuration so far."""
    if summary.best is None:
        return None
    return trial_of(summary.best, intervals.interval(StudyFacts.from_json(summary.facts), summary.best))


def trials_of(summary: Summary) -> list[Trial]:
    """Every configuration."""
    known = intervals.last_intervals(StudyFacts.from_json(summary.facts), summary.history)
    return [trial_of(trial, known.get(trial.number)) for trial in summary.history]


def table_knobs(summary: Summary) -> tuple[str, ...]:
    """The knobs that differ between configurations: those searched, and of a confirmation the seed and the fold."""
    space = summary.record.space
    replicate = [name for name in ("seed", "fold") if name not in space["search"] and name not in space["train"]]
    used = [name for name in replicate if any(name in (trial.params or {}) for trial in summary.history)]
    return (*space["search"], *used)
