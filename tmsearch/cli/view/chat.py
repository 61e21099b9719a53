"""A study in a few words that fit a chat's message or a notice."""

from __future__ import annotations

from collections.abc import Sequence

from search.study import Summary
from tmsearch.cli.view.closing import best_line
from tmsearch.cli.view.format import cost_line, counts_line, judged_line, left_text, searched_knobs, time_left
from tmsearch.formatting import one_line

LONGEST = 500  # characters
_LONGEST_LINE = 160
# Chats take these for commands: <!channel> calls everybody, and so does @all.
_HARMLESS = str.maketrans({"<": "(", ">": ")", "@": "(at)"})


def chat_summary(summary: Summary, ending: str, price: float | None = None) -> str:
    """The study in at most LONGEST characters, a line each: how it stands or ended, counts, the best, its cost."""
    lines = [f"study {summary.record.name}: {ending}", counts_line(summary)]
    line = best_line(summary)
    if line is not None:
        lines.append(line)
    if summary.spent:
        lines.append(cost_line(summary, price))
    if line is not None and summary.best is not None:
        lines.append(searched_knobs(summary.record.space, summary.best.params))
    return fitting_lines(lines)


def fitting_lines(lines: Sequence[str]) -> str:
    """As many of the lines as fit, harmless in any chat; a line that has no room is left out."""
    text = ""
    for line in lines:
        plain = one_line(line.translate(_HARMLESS), _LONGEST_LINE)
        longer = f"{text}\n{plain}" if text else plain
        if len(longer) <= LONGEST:
            text = longer
    return text


def standing(summary: Summary) -> str:
    """How a study stands at the moment."""
    if summary.has_ended:
        return "has ended"
    alive = sum(worker.alive for worker in summary.workers)
    left = time_left(summary, max(1, alive))
    more = f", {left_text(left)} left" if left is not None and alive else ""
    if not alive:
        more = ", nobody works on it now"
    return f"{judged_line(summary)}{more}"
