"""The table of `status`: a line a configuration, its columns as wide as need be, no line wider than asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from search.records import IMPORTED, Configuration
from search.space.errors import printable
from search.study import Summary
from tmsearch.cli.view import intervals
from tmsearch.cli.view.format import short_value
from tmsearch.cli.view.terminal import StyledLine
from tmsearch.formatting import clock_time
from tmsearch.trial.facts import StudyFacts

# On a terminal a state also has a colour; it is always there in words.
STATE_STYLES = {"running": "cyan", "finished": "green", "failed": "red", "queued": "dim", "pruned": "dim", "paused": ""}
HEAD = "bold"
WIDEST = 16  # columns of one knob, as whisper-large-v3 takes: a longer value is cut


@dataclass(frozen=True)
class StatusTable:
    """Head and rows, a line each; `hidden` are the knobs that there was no room for."""

    head: list[StyledLine]
    rows: list[StyledLine]
    hidden: tuple[str, ...]


@dataclass(frozen=True)
class _Column:
    """Cells one below the other under one or two lines of head."""

    head: tuple[str, str]
    cells: list[str]
    right: bool = True

    @property
    def width(self) -> int:
        return max(map(len, (*self.head, *self.cells)))

    def set(self, text: str) -> str:
        return text.rjust(self.width) if self.right else text.ljust(self.width)


def table(summary: Summary, shown: Sequence[Configuration], width: int) -> StatusTable:
    """Of the configurations `shown`, in `width` columns; a configuration's reason stands in place of its knobs."""
    best = summary.best.number if summary.best else None
    left = _left(summary, shown, best)
    room = width - sum(column.width for column in left) - len(left)
    knobs, hidden = _fitting(_knobs(summary, shown), room)
    head: list[StyledLine] = []
    for place in (0, 1):
        text = " ".join(column.set(column.head[place]) for column in left)
        text = f"{text}  {' '.join(column.set(column.head[place]) for column in knobs)}".rstrip()
        if text:
            head.append([(truncate(text, width), HEAD)])
    rows = []
    for place, one in enumerate(shown):
        what = one.reason or "" if _tells_why(one) else " ".join(column.set(column.cells[place]) for column in knobs)
        texts = [column.set(column.cells[place]) for column in left]
        style = "bold green" if one.number == best else STATE_STYLES.get(one.state, "")
        before, state, after = texts[0], texts[1], " ".join(texts[2:])
        rest = truncate(f" {after}  {printable(what)}", width - len(before) - len(state) - 1).rstrip()
        leads = "bold" if one.number == best else ""
        rows.append([(f"{before} ", leads), (state, style), (rest, leads)])
    return StatusTable(head, rows, hidden)


def _left(summary: Summary, shown: Sequence[Configuration], best: int | None) -> list[_Column]:
    """What every configuration has."""
    at = [one.progress.get("step") if one.state == "running" else None for one in shown]
    facts = StudyFacts.from_json(summary.facts)
    sureness = [intervals.ranged(intervals.interval(facts, one)) for one in shown]
    return [
        _Column(("", "no"), [f"{'*' if one.number == best else ''}{one.number}" for one in shown]),
        _Column(("", "state"), [_state(one) for one in shown], right=False),
        _Column(("", "step"), [str(step or one.steps) for step, one in zip(at, shown, strict=True)]),
        _Column(("", "WER"), ["-" if one.value is None else f"{one.value:.3f}" for one in shown]),
        *([_Column(("", "95 %"), sureness, right=False)] if any(sureness) else []),
        _Column(("", "cost"), [clock_time(one.seconds) for one in shown]),
    ]


def _state(one: Configuration) -> str:
    return IMPORTED if one.origin == IMPORTED and one.failure is None else one.state


def _tells_why(one: Configuration) -> bool:
    return one.state == "failed" or (one.state == "paused" and bool(one.reason))


def _knobs(summary: Summary, shown: Sequence[Configuration]) -> list[tuple[str, _Column]]:
    """The searched knobs, their names on two lines."""
    found = []
    for name in summary.record.space["search"]:
        values = [(one.params or {}).get(name, "?") for one in shown]
        numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
        cells = [truncate(printable(short_value(value)), WIDEST) for value in values]
        found.append((name, _Column(_two(name, max(map(len, cells), default=0)), cells, right=numbers)))
    return found


def _two(name: str, width: int) -> tuple[str, str]:
    """A name on one line where its values are as wide, else on two, parted where both are shortest."""
    words = name.split("_")
    ways = [("_".join(words[:place]), "_".join(words[place:])) for place in range(len(words))]
    return min(ways, key=lambda way: (max(width, len(way[0]), len(way[1])), len(way[0]) > 0))


def _fitting(knobs: Sequence[tuple[str, _Column]], room: int) -> tuple[list[_Column], tuple[str, ...]]:
    """As many knobs as there is room for, in their order; and the names of the others."""
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
    """No longer than `width`."""
    return text if len(text) <= width else f"{text[: max(0, width - 3)]}..."
