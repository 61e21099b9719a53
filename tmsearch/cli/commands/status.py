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
from search.records import Configuration, code_versions
from search.samplers import repeats
from search.space.errors import printable
from search.space.search_space import Space
from search.storage.database import open_storage
from search.storage.ledger import Ledger
from search.study import Summary
from tmsearch.cli.commands.show import configuration_json, noise_lines, print_json
from tmsearch.cli.view import intervals, terminal
from tmsearch.cli.view.chat import chat_summary, standing
from tmsearch.cli.view.format import (
    cost_line,
    dollars_left,
    judged_line,
    left_text,
    rates_beside,
    rungs,
    short_value,
    states_in_words,
    time_left,
)
from tmsearch.cli.view.table import MOST_INTERVALS, table, truncate
from tmsearch.cli.view.terminal import StyledLine
from tmsearch.trial.facts import StudyFacts

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

RESERVED_LINES = 4  # of a page: the table's head of two lines, a line on hidden rows, the cursor's line


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
    """What was spent, and what is left with those who work on it, or with one worker."""
    workers = max(1, sum(worker.alive for worker in summary.workers))
    left = None if summary.has_ended else time_left(summary, workers)
    spending: dict[str, Any] = {
        "seconds_spent": summary.spent,
        "seconds_left": None if left is None else dataclasses.asdict(left),
    }
    if price is not None:
        hourly = {} if left is None else dataclasses.asdict(left)
        spending["dollars_spent"] = summary.spent / 3600 * price
        spending["dollars_left"] = {name: value * workers / 3600 * price for name, value in hourly.items()} or None
    return spending


def page_lines(summary: Summary, width: int, height: int | None = None, price: float | None = None) -> list[StyledLine]:
    """The page about a study.

    Args:
        summary: the study's.
        width: columns that no line may be longer than.
        height: lines that the page must fit in, for which it leaves out configurations; None: no limit.
        price: dollars an hour of each worker; None: no money is mentioned.
    """
    above = _lines_above(summary, width)
    below = _lines_below(summary, price)
    shown: Sequence[Configuration] = summary.history
    room = len(shown) if height is None else height - len(above) - len(below) - RESERVED_LINES
    if len(shown) > room:
        shown = _most_relevant(summary, max(1, room))
        below.insert(0, f"{len(summary.history) - len(shown)} more: `tmsearch status {summary.record.name}` lists all")
    page: list[StyledLine] = [[(truncate(line, width), "")] for line in above]
    page[0] = [(text, "bold") for text, _ in page[0]]
    if shown:
        status_table = table(summary, shown, width)
        page += status_table.head + status_table.rows
        if status_table.without_interval:
            below.insert(0, f"95 % of the {MOST_INTERVALS} best alone; `tmsearch show` and --json have the others'")
        if status_table.hidden:
            below.insert(0, f"no room for {', '.join(status_table.hidden)}: a wider terminal, or --json, has them")
    page += [[(truncate(line, width), "")] for line in below]
    return page


def _most_relevant(summary: Summary, room: int) -> list[Configuration]:
    """The best, those that run, and the latest of the others; in the order of their numbers."""
    best = summary.best.number if summary.best else None
    ranked = sorted(summary.history, key=lambda trial: (trial.number != best, trial.state != "running", -trial.number))
    return sorted(ranked[:room], key=lambda trial: trial.number)


def _lines_above(summary: Summary, width: int) -> list[str]:
    """How many configurations there are in which state, the baselines, and how many reached each rung."""
    record = summary.record
    study, states = f"study {record.name}: {judged_line(summary)}", states_in_words(summary)
    lines = [f"{study}: {states}"] if len(f"{study}: {states}") <= width else [study, f"  states: {states}"]
    facts = StudyFacts.from_json(summary.facts)
    for model, baseline in facts.baselines.items():
        interval = intervals.bracketed(intervals.baseline_interval(facts, model))
        rate = baseline.rate(record.objective)
        name = f"{printable(short_value(model))} untrained (zero-shot)"
        kept = f"; on data.keep WER {facts.kept[model]:.3f}" if model in facts.kept else ""
        lines.append(f"{name}: {record.measure} {rate:.3f}{interval}{kept}")
    if summary.history:
        lines.append(rungs(summary, best=True))
    return lines


def _lines_below(summary: Summary, price: float | None) -> list[str]:
    """Costs, noise, workers, and remarks on how the results came about."""
    lines = [cost_line(summary, price)] if summary.history else []
    lines += noise_lines(summary)
    lines += _worker_lines(summary, price)
    repeated = repeats.remark(Space.from_json(dict(summary.record.space)).search, summary.history)
    if repeated:
        lines.append(repeated)
    versions = code_versions(summary.history)
    if len(versions) > 1:
        counts = ", ".join(f"{count} by {version}" for version, count in versions.items())
        lines.append(f"the code changed midway: {counts}")
    if summary.record.stop_reason:
        lines.append(f"stopped: {printable(summary.record.stop_reason)}")
    if summary.best:
        command = f"tmsearch show {summary.record.name} {summary.best.number}"
        lines.append(f"* the best so far; `{command}` tells more")
        rates, *long_edits = rates_beside(summary.record.objective, summary.best.metrics).split("  (")
        lines.append(f"beside it: {rates}")
        lines += [f"  ({edits}" for edits in long_edits]
    return lines


def _worker_lines(summary: Summary, price: float | None) -> list[str]:
    """The time left, then a line a worker."""
    workers = [worker for worker in summary.workers if worker.alive]
    lines = []
    left = None if summary.has_ended else time_left(summary, max(1, len(workers)))
    if left is not None and left.seconds:
        count = f"{len(workers)} worker{'s' if len(workers) > 1 else ''}" if workers else "one worker; none works now"
        lines.append(f"{left_text(left)} left with {count}")
        if price is not None:
            lines.append(f"  {dollars_left(left, max(1, len(workers)), price)}")
    trials = {trial.worker: f"trial {trial.number}" for trial in summary.history if trial.state == "running"}
    lines += [f"worker {worker.display_name}: {trials.get(worker.identity, 'idle')}" for worker in workers]
    return lines


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
