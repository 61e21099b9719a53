"""The live lines of a run on a terminal: one for each running trial, then the study's, cut to the terminal's width."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook, RenderResult
from rich.control import Control
from rich.progress_bar import ProgressBar
from rich.segment import ControlType
from rich.text import Text

from search.schedulers.eta import TimeLeft
from tmsearch.cli.view.format import dollars, left_text
from tmsearch.formatting import clock_time

GAP = "  "
SHORTEST_BAR = 8  # columns: a shorter one says nothing
LONGEST_BAR = 24
# A step that takes longer than so many of its like, and so many seconds, is shown to be late.
SILENT_STEPS = 5
SILENT_SECONDS = 60.0
# Columns that a narrow terminal does without, the first one first; number and step always stay.
DROP_ORDER = ("speed", "device", "bar", "next", "wer", "loss")


@dataclass
class RunningTrial:
    """A trial in training from `first_step` to `last_step` of `max_steps`; `step_seconds` is its last step's time."""

    number: int
    first_step: int
    last_step: int
    max_steps: int
    step: int = 0
    loss: float | None = None
    wer: float | None = None  # the objective at its last rung
    measure: str = "WER"
    step_seconds: float = 0.0
    device: str = ""
    updated_at: float = field(default_factory=time.monotonic)  # when the step was reported

    def cells(self) -> dict[str, str]:
        """Its line by column."""
        if self.loss is None:
            loss = "preparing"
            next_event = f"to step {self.last_step}"
        else:
            loss = f"loss {self.loss:.3f}"
            next_event = self._next_event()
        return {
            "number": f"trial {self.number}",
            "step": f"step {max(self.step, self.first_step)}/{self.max_steps}",
            "bar": "",
            "loss": loss,
            "wer": "" if self.wer is None else f"{self.measure} {self.wer:.3f}",
            "next": next_event,
            "speed": f"{self.step_seconds:.2g} s/step" if self.step_seconds else "",
            "device": self.device,
        }

    def _next_event(self) -> str:
        if self.step >= self.last_step:
            return "evaluating"
        silence = time.monotonic() - self.updated_at
        if self.step_seconds and silence > max(SILENT_SECONDS, SILENT_STEPS * self.step_seconds):
            return f"no step for {clock_time(silence)}"
        seconds = (self.last_step - self.step) * self.step_seconds - silence
        return f"step {self.last_step} in {clock_time(max(0.0, seconds))}"


@dataclass
class LiveDisplay:
    """The live lines. `parts` say where the study stands; `left` was estimated at `estimated_at`."""

    running: dict[int, RunningTrial] = field(default_factory=dict)
    parts: Sequence[str] = ()
    left: TimeLeft | None = None
    hourly: float | None = None  # dollars of all workers
    estimated_at: float = field(default_factory=time.monotonic)
    line_widths: Sequence[int] = ()  # columns of each line as it was last drawn

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = max(1, options.max_width)
        trials = sorted(self.running.values(), key=lambda trial: trial.number)
        study_lines = pack_parts(self._study_parts(), width)
        room = max(2, console.height - len(study_lines) - 1)
        shown = trials if len(trials) <= room else trials[: room - 1]
        lines = _trial_lines(shown, console, options)
        if len(shown) < len(trials):
            lines.append(Text(f"and {len(trials) - len(shown)} more running", style="dim"))
        lines += [Text(line, style="bold") for line in study_lines]
        for line in lines:
            line.rstrip()
            line.truncate(width, overflow="ellipsis")
            line.no_wrap = True
            line.overflow = "crop"
        self.line_widths = [line.cell_len for line in lines]
        yield from lines

    def _study_parts(self) -> list[str]:
        """The study's parts, and the time left, which counts down while something runs and is not shown below 1 s."""
        parts = list(self.parts)
        if self.left is None or not self.running:
            return parts
        remaining = self.left.less(time.monotonic() - self.estimated_at)
        if remaining.seconds > 1:
            money = "" if self.hourly is None else f", {dollars(remaining.seconds, self.hourly)}"
            parts.append(f"{left_text(remaining)} left{money}")
        return parts


class DrawnLines(Protocol):
    """Live lines that know how wide each was as it was last drawn."""

    line_widths: Sequence[int]


class ReflowCleanup(RenderHook):
    """Erases the extra lines that appear when a terminal becomes narrower: it wraps the live lines, unknown to rich."""

    def __init__(self, live: DrawnLines, console: Console) -> None:
        self._live = live
        self._console = console

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        width = max(1, self._console.width)
        extra = sum(max(0, columns - 1) // width for columns in self._live.line_widths)
        erase_line = ((ControlType.ERASE_IN_LINE, 2), (ControlType.CURSOR_UP, 1))
        return [Control(*erase_line * extra), *renderables] if extra else renderables


def pack_parts(parts: Sequence[str], width: int) -> list[str]:
    """Parts on as few lines of `width` columns as possible; a part that is wider gets its own line."""
    lines: list[str] = []
    for part in parts:
        if lines and len(lines[-1]) + len(GAP) + len(part) <= width:
            lines[-1] += GAP + part
        else:
            lines.append(part)
    return lines


def _trial_lines(trials: Sequence[RunningTrial], console: Console, options: ConsoleOptions) -> list[Text]:
    """A line for each trial, in columns."""
    cells_of = [trial.cells() for trial in trials]
    widths = _column_widths(cells_of, options.max_width)
    lines = []
    for trial, cells in zip(trials, cells_of, strict=True):
        line = Text()
        for name, width in widths.items():
            line.append(GAP if line else "")
            if name == "bar":
                line.append_text(_bar(trial, width, console, options))
            else:
                line.append(cells[name].rjust(width) if name == "step" else cells[name].ljust(width))
        lines.append(line)
    return lines


def _column_widths(cells_of: Sequence[dict[str, str]], max_width: int) -> dict[str, int]:
    """Of the columns that there is room for; the bar takes what the others leave."""
    widths = {}
    for name in cells_of[0] if cells_of else ():
        width = max(len(cells[name]) for cells in cells_of)
        if name == "bar":
            widths[name] = SHORTEST_BAR
        elif width:
            widths[name] = width
    for name in DROP_ORDER:
        if _total(widths) > max_width:
            widths.pop(name, None)
    if "bar" in widths:
        widths["bar"] = min(LONGEST_BAR, SHORTEST_BAR + max(0, max_width - _total(widths)))
    return widths


def _bar(trial: RunningTrial, width: int, console: Console, options: ConsoleOptions) -> Text:
    bar = ProgressBar(total=trial.max_steps, completed=max(trial.step, trial.first_step), width=width)
    text = Text()
    for segment in console.render(bar, options.update_width(width)):
        text.append(segment.text, segment.style)
    text.pad_right(width - text.cell_len)  # without colour rich does not draw the remainder of a bar
    return text


def _total(widths: dict[str, int]) -> int:
    return sum(widths.values()) + len(GAP) * max(0, len(widths) - 1)
