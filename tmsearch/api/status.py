"""How a study stands: numbers for a program, and the page that `tmsearch status` prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from search.study import Summary
from tmsearch.api.records import Trial, trial_of
from tmsearch.api.view import html
from tmsearch.cli.view import intervals
from tmsearch.cli.view.format import spending_of
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
        seconds_left_low: the lower end of the range that holds four ends in five.
        seconds_left_high: the upper end.
        dollars_spent: at the price that was given; None: without one.
        dollars_left: `seconds_left` of all workers, at that price; likewise with its range.
        dollars_left_low: the lower end.
        dollars_left_high: the upper end.
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
    seconds_left_low: float | None
    seconds_left_high: float | None
    dollars_spent: float | None
    dollars_left: float | None
    dollars_left_low: float | None
    dollars_left_high: float | None
    stopped: str | None
    workers: int
    page: tuple[StyledLine, ...] = field(default=(), compare=False)

    def __str__(self) -> str:
        return "\n".join("".join(text for text, _ in line).rstrip() for line in self.page)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """The page in a notebook."""
        return html.page(self.page)


def status_of(summary: Summary, storage: str, price: float | None = None) -> Status:
    """The status of a study in the storage of that name, with the cost at so many dollars an hour of a worker."""
    alive = sum(worker.alive for worker in summary.workers)
    spending = spending_of(summary, price)
    left, cost_left = spending.seconds_left, spending.dollars_left
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
        seconds_left_low=None if left is None else left.low,
        seconds_left_high=None if left is None else left.high,
        dollars_spent=spending.dollars_spent,
        dollars_left=None if cost_left is None else cost_left.dollars,
        dollars_left_low=None if cost_left is None else cost_left.low,
        dollars_left_high=None if cost_left is None else cost_left.high,
        stopped=summary.record.stop_reason,
        workers=alive,
        page=tuple(page_lines(summary, WIDTH, price=price)),
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
