"""The live lines of a run on a terminal: one a running trial, then the study's; cut to its width, never wrapped."""

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

from tmsearch.cli.view.format import about
from tmsearch.formatting import clock_time

GAP = "  "
BAR = (8, 24)  # columns: below the first it tells nothing
# What a narrow terminal goes without, from the first on; number and step stay.
FIRST_TO_GO = ("speed", "place", "bar", "ahead", "wer", "loss")


@dataclass
class RunningTrial:
    """A trial at work, between the steps `first` and `target` of `full`. `step_seconds` is the last step's time."""

    number: int
    first_step: int
    last_step: int
    max_steps: int
    step: int = 0
    loss: float | None = None
    wer: float | None = None  # its last
    step_seconds: float = 0.0
    device: str = ""
    updated_at: float = field(default_factory=time.monotonic)  # when the step was told

    def cells(self) -> dict[str, str]:
        """What its line says, by column."""
        left = max(0.0, (self.last_step - self.step) * self.step_seconds - (time.monotonic() - self.updated_at))
        if self.loss is None:
            doing, ahead = "prepares", f"to step {self.last_step}"
        elif self.step >= self.last_step:
            doing, ahead = f"loss {self.loss:.3f}", "evaluates"
        else:
            doing, ahead = f"loss {self.loss:.3f}", f"step {self.last_step} in {clock_time(left)}"
        return {
            "number": f"trial {self.number}",
            "step": f"step {max(self.step, self.first_step)}/{self.max_steps}",
            "bar": "",
            "loss": doing,
            "wer": "" if self.wer is None else f"WER {self.wer:.3f}",
            "ahead": ahead,
            "speed": f"{self.step_seconds:.2g} s/step" if self.step_seconds else "",
            "place": self.device,
        }


@dataclass
class LiveDisplay:
    """What is live. `parts` say where the study stands, as many a line as there is room for; last of them comes the
    time left, which runs: it was `left` seconds at `at`."""

    running: dict[int, RunningTrial] = field(default_factory=dict)
    parts: Sequence[str] = ()
    seconds_left: float | None = None
    estimated_at: float = field(default_factory=time.monotonic)
    line_widths: Sequence[int] = ()  # columns of each line, as it was last drawn

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = max(1, options.max_width)
        trials = sorted(self.running.values(), key=lambda one: one.number)
        study = pack_parts(self._study(), width)
        room = max(2, console.height - len(study) - 1)
        shown = trials if len(trials) <= room else trials[: room - 1]
        table = [one.cells() for one in shown]
        lines = _table(table, shown, console, options)
        if len(shown) < len(trials):
            lines.append(Text(f"and {len(trials) - len(shown)} more at work", style="dim"))
        lines += [Text(said, style="bold") for said in study]
        for line in lines:
            line.rstrip()
            line.truncate(width, overflow="ellipsis")
            line.no_wrap, line.overflow = True, "crop"
        self.line_widths = [line.cell_len for line in lines]
        yield from lines

    def _study(self) -> list[str]:
        """The study's parts; an estimate goes down while something runs, and is not said once it was too low."""
        left = (self.seconds_left or 0.0) - (time.monotonic() - self.estimated_at)
        return [*self.parts, f"{about(left)} left"] if self.running and left > 1 else list(self.parts)


class DrawnLines(Protocol):
    """Live lines that know how wide each was as it was last drawn."""

    line_widths: Sequence[int]


class ReflowCleanup(RenderHook):
    """Takes away what a terminal made of the live lines as it became narrower: it wrapped them, unknown to rich."""

    def __init__(self, live: DrawnLines, console: Console) -> None:
        self._live = live
        self._console = console

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        width = max(1, self._console.width)
        more = sum(max(0, columns - 1) // width for columns in self._live.line_widths)
        up = ((ControlType.ERASE_IN_LINE, 2), (ControlType.CURSOR_UP, 1))
        return [Control(*up * more), *renderables] if more else renderables


def pack_parts(parts: Sequence[str], width: int) -> list[str]:
    """Parts on as few lines of `width` as they go on; one that is wider has its own."""
    lines: list[str] = []
    for part in parts:
        if lines and len(lines[-1]) + len(GAP) + len(part) <= width:
            lines[-1] += GAP + part
        else:
            lines.append(part)
    return lines


def _table(
    table: Sequence[dict[str, str]], trials: Sequence[RunningTrial], console: Console, options: ConsoleOptions
) -> list[Text]:
    """The trials' cells in columns, without those that there is no room for."""
    widths = {name: max(len(cells[name]) for cells in table) for name in table[0]} if table else {}
    widths = {name: width for name, width in widths.items() if width or name == "bar"}
    if "bar" in widths:
        widths["bar"] = BAR[0]
    for name in FIRST_TO_GO:
        if _total(widths) > options.max_width:
            widths.pop(name, None)
    if "bar" in widths:
        widths["bar"] = min(BAR[1], BAR[0] + max(0, options.max_width - _total(widths)))
    lines = []
    for one, cells in zip(trials, table, strict=True):
        line = Text()
        for name, width in widths.items():
            line.append(GAP if line else "")
            if name == "bar":
                bar = ProgressBar(total=one.max_steps, completed=max(one.step, one.first_step), width=width)
                drawn = Text()
                for segment in console.render(bar, options.update_width(width)):
                    drawn.append(segment.text, segment.style)
                drawn.pad_right(width - drawn.cell_len)  # without colour the rest of a bar is not drawn
                line.append_text(drawn)
            else:
                line.append(cells[name].rjust(width) if name == "step" else cells[name].ljust(width))
        lines.append(line)
    return lines


def _total(widths: dict[str, int]) -> int:
    return sum(widths.values()) + len(GAP) * max(0, len(widths) - 1)
