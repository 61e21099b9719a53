"""The table of `status`: a line for each configuration, columns as wide as their cells, no line wider than asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from search.records import IMPORTED, Configuration
from search.space.errors import printable
from search.study import Summary
from tmsearch.cli.view import intervals
from tmsearch.cli.view.format import short_value
from tmsearch.cli.view.terminal import StyledLine
from tmsearch.formatting import clock_time
from tmsearch.trial.facts import StudyFacts

# The state is always shown in words; on a terminal it also has a colour.
STATE_STYLES = {"running": "cyan", "finished": "green", "failed": "red", "queued": "dim", "pruned": "dim", "paused": ""}
HEAD = "bold"
MOST_INTERVALS = 50  # of a table: each takes milliseconds
MAX_KNOB_WIDTH = 16  # columns, as whisper-large-v3 takes; a longer value is truncated


@dataclass(frozen=True)
class StatusTable:
    """Lines of the head and of each row.

    `hidden` are the knobs that there was no room for, `without_interval` how many results have no interval shown.
    """

    head: list[StyledLine]
    rows: list[StyledLine]
    hidden: tuple[str, ...]
    without_interval: int


@dataclass(frozen=True)
class _Column:
    """Cells under a head of one or two lines."""

    head: tuple[str, str]
    cells: list[str]
    right: bool = True

    @cached_property
    def width(self) -> int:
        return max(map(len, (*self.head, *self.cells)))

    def aligned(self, text: str) -> str:
        return text.rjust(self.width) if self.right else text.ljust(self.width)


def table(summary: Summary, shown: Sequence[Configuration], width: int) -> StatusTable:
    """The configurations `shown` in `width` columns; those that failed show the reason in place of their knobs."""
    best = summary.best.number if summary.best else None
    results = _result_columns(summary, shown, best)
    room = width - sum(column.width for column in results) - len(results)
    knobs, hidden = _fitting(_knob_columns(summary, shown), room)
    rows = []
    for index, trial in enumerate(shown):
        cells = [column.aligned(column.cells[index]) for column in results]
        if _shows_reason(trial):
            details = trial.reason or ""
        else:
            details = " ".join(column.aligned(column.cells[index]) for column in knobs)
        rows.append(_row(trial, cells, printable(details), width, is_best=trial.number == best))
    without_interval = max(0, sum(bool(trial.rungs) for trial in shown) - MOST_INTERVALS)
    return StatusTable(_head(results, knobs, width), rows, hidden, without_interval)


def _head(results: Sequence[_Column], knobs: Sequence[_Column], width: int) -> list[StyledLine]:
    lines: list[StyledLine] = []
    for index in (0, 1):
        titles = " ".join(column.aligned(column.head[index]) for column in results)
        knob_titles = " ".join(column.aligned(column.head[index]) for column in knobs)
        text = f"{titles}  {knob_titles}".rstrip()
        if text:
            lines.append([(truncate(text, width), HEAD)])
    return lines


def _row(trial: Configuration, cells: Sequence[str], details: str, width: int, *, is_best: bool) -> StyledLine:
    number, state, *others = cells
    text = truncate(f" {' '.join(others)}  {details}", width - len(number) - len(state) - 1).rstrip()
    state_style = "bold green" if is_best else STATE_STYLES.get(trial.state, "")
    style = "bold" if is_best else ""
    return [(f"{number} ", style), (state, state_style), (text, style)]


def _result_columns(summary: Summary, shown: Sequence[Configuration], best: int | None) -> list[_Column]:
    """The columns that every study has."""
    facts = StudyFacts.from_json(summary.facts)
    known = intervals.last_intervals(facts, _leaders(shown))
    ranges = [intervals.ranged(known.get(trial.number)) for trial in shown]
    values = ["-" if trial.value is None else f"{trial.value:.3f}" for trial in shown]
    columns = [
        _Column(("", "no"), [f"{'*' if trial.number == best else ''}{trial.number}" for trial in shown]),
        _Column(("", "state"), [_state(trial) for trial in shown], right=False),
        _Column(("", "step"), [_step(trial) for trial in shown]),
        _Column(("", summary.record.measure), values),
    ]
    if any(ranges):
        columns.append(_Column(("", "95 %"), ranges, right=False))
    columns.append(_Column(("", "cost"), [clock_time(trial.seconds) for trial in shown]))
    return columns


def _leaders(shown: Sequence[Configuration]) -> list[Configuration]:
    """Those whose intervals are shown: of a long table the best at the highest rungs."""
    with_result = [trial for trial in shown if trial.rungs]
    ranked = sorted(with_result, key=lambda trial: (-trial.steps, trial.rungs[-1].value, trial.number))
    return ranked[:MOST_INTERVALS]


def _state(trial: Configuration) -> str:
    return IMPORTED if trial.origin == IMPORTED and trial.failure is None else trial.state


def _step(trial: Configuration) -> str:
    """The step that a running trial is at, or the last rung."""
    running_step = trial.progress.get("step") if trial.state == "running" else None
    return str(running_step or trial.steps)


def _shows_reason(trial: Configuration) -> bool:
    return trial.state == "failed" or (trial.state == "paused" and bool(trial.reason))


def _knob_columns(summary: Summary, shown: Sequence[Configuration]) -> list[tuple[str, _Column]]:
    """The searched knobs."""
    columns = []
    for name in summary.record.space["search"]:
        values = [(trial.params or {}).get(name, "?") for trial in shown]
        are_numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
        cells = [truncate(printable(short_value(value)), MAX_KNOB_WIDTH) for value in values]
        head = _two_lines(name, max(map(len, cells), default=0))
        columns.append((name, _Column(head, cells, right=are_numbers)))
    return columns


def _two_lines(name: str, width: int) -> tuple[str, str]:
    """A knob's name on one line where its values are as wide, else on two, split where the wider one is narrowest."""
    words = name.split("_")
    heads = [("_".join(words[:index]), "_".join(words[index:])) for index in range(len(words))]
    return min(heads, key=lambda head: (max(width, len(head[0]), len(head[1])), len(head[0]) > 0))


def _fitting(knobs: Sequence[tuple[str, _Column]], room: int) -> tuple[list[_Column], tuple[str, ...]]:
    """As many knobs, in their order, as fit into `room` columns; and the names of the others."""
    fitting: list[_Column] = []
    hidden = []
    for name, column in knobs:
        if column.width + 1 <= room:
            fitting.append(column)
            room -= column.width + 1
        else:
            hidden.append(name)
    return fitting, tuple(hidden)


def truncate(text: str, width: int) -> str:
    """`text` in at most `width` columns."""
    return text if len(text) <= width else f"{text[: max(0, width - 3)]}..."
