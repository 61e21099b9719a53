"""The command status: a study as a table, once or watched."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from search import study
from search.errors import RunError, StorageUnavailableError, UserError
from search.exit_codes import DONE
from search.records import code_versions
from search.storage.database import open_storage
from search.storage.ledger import Ledger
from search.study import Summary
from tmsearch.cli.commands.show import print_json
from tmsearch.cli.view import intervals, terminal
from tmsearch.cli.view.chat import chat_summary, standing
from tmsearch.cli.view.format import spending_of
from tmsearch.cli.view.status_page import page_lines
from tmsearch.cli.view.table import truncate
from tmsearch.cli.view.terminal import StyledLine
from tmsearch.cli.view.trial_fields import configuration_json
from tmsearch.trial.facts import StudyFacts

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult


def status(arguments: argparse.Namespace) -> int:
    """A line a configuration, and the study's state."""
    storage = open_storage(arguments.storage)
    ledger = study.open_study(storage, arguments.study)
    if arguments.watch is not None:
        if arguments.json or arguments.brief:
            raise UserError("status: --watch is for a person who stays, --json and --brief are not; give one of them")
        return watch(ledger, arguments.watch, arguments.price)
    summary = study.summarize(ledger)
    if arguments.brief:
        if arguments.json:
            raise UserError("status: --brief is for a chat, --json for a script; give one of them")
        print(chat_summary(summary, standing(summary), arguments.price))
        return DONE
    if arguments.json:
        known = intervals.last_intervals(StudyFacts.from_json(summary.facts), summary.history)
        return print_json(
            {
                "study": summary.record.name,
                "storage": storage.display_name,
                "stopped": summary.record.stop_reason,
                "code": code_versions(summary.history),
                "workers": [dataclasses.asdict(worker) for worker in summary.workers],
                **_spending_json(summary, arguments.price),
                "configurations": [configuration_json(trial, known.get(trial.number)) for trial in summary.history],
            }
        )
    terminal.print_lines(page_lines(summary, terminal.width(), price=arguments.price))
    return DONE


def _spending_json(summary: Summary, price: float | None) -> dict[str, Any]:
    """What was spent and is left; in dollars, too, where there is a price."""
    spending = dataclasses.asdict(spending_of(summary, price))
    if price is None:
        del spending["dollars_spent"], spending["dollars_left"]
    return spending


def watch(ledger: Ledger, seconds: float, price: float | None = None) -> int:
    """Print the page every so many seconds until every configuration has ended; in place on a terminal.

    Raises:
        RunError: the study was stopped before its end, so waiting for it is useless.
    """
    snapshots = _snapshots(ledger, seconds)
    if terminal.can_redraw():
        _redraw(snapshots, price)
    else:
        _print_changes(snapshots, price)
    if has_ended(study.summarize(ledger)):
        return DONE
    raise RunError(f"{ledger.study}: stopped before its end; `tmsearch resume {ledger.study}` continues")


def _snapshots(ledger: Ledger, seconds: float) -> Iterator[tuple[Summary, str]]:
    """The study as it is now with a notice or none; the last snapshot is of a study that has ended or was stopped.

    Reads what changed, in transactions that block no writer. While the database is away it asks again.
    """
    summary = study.summarize(ledger)
    yield summary, ""
    while not has_ended(summary) and not has_stopped(summary):
        time.sleep(seconds)
        try:
            summary = study.summarize(ledger)
        except StorageUnavailableError as error:
            yield summary, f"{error}; asked again every {seconds:g} s"
        else:
            yield summary, ""


def has_ended(summary: Summary) -> bool:
    """Whether nothing is left to do in the study."""
    return summary.has_ended


def has_stopped(summary: Summary) -> bool:
    """Whether a person or a failure stopped the study, and its workers have left."""
    return summary.record.stopping and not any(worker.alive for worker in summary.workers)


def _print_changes(snapshots: Iterator[tuple[Summary, str]], price: float | None) -> None:
    """Plain pages, an empty line between them; one only where more than the clock has changed."""
    printed: object = None
    for summary, notice in snapshots:
        alive = [worker.identity for worker in summary.workers if worker.alive]
        content = (summary.record, summary.history, alive, notice)
        if content == printed:
            continue
        if printed is not None:
            print()
        printed = content
        terminal.print_lines(page_lines(summary, terminal.width(), price=price))
        if notice:
            print(notice)
        sys.stdout.flush()


class _LivePage:
    """The last snapshot, made into lines for whatever size the terminal has when it is drawn."""

    def __init__(self, price: float | None) -> None:
        self.summary: Summary | None = None
        self._price = price
        self.notice = ""
        self.line_widths: Sequence[int] = ()

    def lines(self, width: int, height: int | None) -> list[StyledLine]:
        if self.summary is None:
            return []
        notice: list[StyledLine] = [[(truncate(self.notice, width), "yellow")]] if self.notice else []
        page_height = None if height is None else height - len(notice)
        return page_lines(self.summary, width, page_height, self._price) + notice

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        lines = self.lines(console.width, console.height)
        texts = [Text.assemble(*line, no_wrap=True, overflow="crop") for line in lines]
        self.line_widths = [text.cell_len for text in texts]
        yield from texts


def _redraw(snapshots: Iterator[tuple[Summary, str]], price: float | None) -> None:
    """Draw the page over itself; at the end, or after Ctrl-C, it stays as plain lines."""
    from rich.console import Console
    from rich.live import Live

    from tmsearch.cli.view.live import ReflowCleanup

    console = Console(highlight=False)
    page = _LivePage(price)
    ended = False
    live = Live(page, console=console, transient=True, refresh_per_second=2, vertical_overflow="crop")
    try:
        with live:
            console.push_render_hook(ReflowCleanup(page, console))
            try:
                for page.summary, page.notice in snapshots:
                    live.refresh()
                ended = True
            finally:
                console.pop_render_hook()
    finally:
        terminal.print_lines(page.lines(console.width, None if ended else console.height))
