"""`status --watch`: the page again and again, in place on a terminal, in a pipe whenever it changed."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from search import study
from search.errors import RunError, StorageUnavailableError
from search.storage.ledger import Ledger
from search.study import Summary
from tmsearch.cli.commands import status
from tmsearch.cli.view import terminal
from tmsearch.cli.view.live import ReflowCleanup
from tmsearch.cli.view.table import truncate
from tmsearch.cli.view.terminal import StyledLine


def watch(ledger: Ledger, seconds: float) -> int:
    """Until every configuration has ended, which the exit code says.

    Raises RunError where the study was stopped before that: nobody would go on with it while we wait.
    """
    looks = _looks(ledger, seconds)
    if terminal.can_redraw():
        _in_place(looks)
    else:
        _one_by_one(looks)
    if ended(study.summarize(ledger)):
        return 0
    raise RunError(f"{ledger.study}: stopped before its end; `tmsearch resume {ledger.study}` goes on")


def _looks(ledger: Ledger, seconds: float) -> Iterator[tuple[Summary, str]]:
    """The study as it is now, and what is to be said beside it; the last look is at one that has ended.

    Reads what changed, in transactions that keep no writer waiting. A database that is away is waited for.
    """
    summary = study.summarize(ledger)
    while True:
        yield summary, ""
        if ended(summary) or stopped(summary):
            return
        while True:
            time.sleep(seconds)
            try:
                summary = study.summarize(ledger)
                break
            except StorageUnavailableError as gone:
                yield summary, f"{gone}; waiting for it"


def ended(summary: Summary) -> bool:
    """Whether nothing is left to do in the study."""
    begun = len(summary.history) >= summary.record.trials
    return begun and bool(summary.history) and all(one.ended for one in summary.history)


def stopped(summary: Summary) -> bool:
    """Whether nobody is at work because somebody, or a fault, stopped the study."""
    return summary.record.stopping and not any(one.alive for one in summary.workers)


def _one_by_one(looks: Iterator[tuple[Summary, str]]) -> None:
    """Plain pages, a line between them; times that only go by make no new one."""
    before: object = None
    for summary, notice in looks:
        seen = (summary.record, summary.history, [one.identity for one in summary.workers if one.alive], notice)
        if seen == before:
            continue
        if before is not None:
            print()
        before = seen
        terminal.print_lines(status.lines(summary, terminal.width()))
        if notice:
            print(notice)
        sys.stdout.flush()


class _Page:
    """The last look, made into lines for whatever size the terminal has as it is drawn."""

    def __init__(self) -> None:
        self.summary: Summary | None = None
        self.notice = ""
        self.line_widths: Sequence[int] = ()

    def lines(self, width: int, height: int | None) -> list[StyledLine]:
        if self.summary is None:
            return []
        said: list[StyledLine] = [[(truncate(self.notice, width), "yellow")]] if self.notice else []
        return status.lines(self.summary, width, None if height is None else height - len(said)) + said

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = self.lines(console.width, console.height)
        drawn = [Text.assemble(*line, no_wrap=True, overflow="crop") for line in lines]
        self.line_widths = [line.cell_len for line in drawn]
        yield from drawn


def _in_place(looks: Iterator[tuple[Summary, str]]) -> None:
    """The page where it stands; in the end, or when Ctrl-C is pressed, it stays as plain lines."""
    console, page, over = Console(highlight=False), _Page(), False
    live = Live(page, console=console, transient=True, refresh_per_second=2, vertical_overflow="crop")
    try:
        with live:
            console.push_render_hook(ReflowCleanup(page, console))
            try:
                for page.summary, page.notice in looks:
                    live.refresh()
                over = True
            finally:
                console.pop_render_hook()
    finally:
        terminal.print_lines(page.lines(console.width, None if over else console.height))
