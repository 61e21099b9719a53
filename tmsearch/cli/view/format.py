"""How values look on a line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from search.records import Configuration
from search.schedulers import eta
from search.schedulers.eta import rung_summaries
from search.space.budget import Budget
from search.study import Summary
from tmsearch.config import TrainConfig
from tmsearch.formatting import clock_time


def short_value(value: Any) -> str:
    """A value as a line shows it: a model by its last name, a number in few digits."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, str) and "/" in value:
        return value.rstrip("/").rpartition("/")[2]
    return str(value)


def model_of(one: Configuration) -> str:
    """The checkpoint that a configuration trains."""
    return str((one.params or {}).get("model", TrainConfig.model))


def searched_knobs(space: Mapping[str, Any], params: Mapping[str, Any] | None) -> str:
    """The searched knobs of one configuration on one line."""
    if params is None:
        return "not drawn yet"
    # A confirmation's trainings differ in these, which no space of theirs searches.
    also = [name for name in ("seed", "fold") if name not in space["search"] and name not in space["train"]]
    return " ".join(f"{name}={short_value(params[name])}" for name in [*space["search"], *also] if name in params)


def about(seconds: float) -> str:
    """An estimate, in no more digits than it is worth: `about 40 s`, `about 12 min`, `about 3.5 h`."""
    if seconds < 90:
        return f"about {max(10, round(seconds, -1)):.0f} s"
    if seconds < 5400:
        return f"about {seconds / 60:.0f} min"
    return f"about {seconds / 3600:.1f} h" if seconds < 36_000 else f"about {seconds / 3600:.0f} h"


def rungs(summary: Summary, best: bool = False) -> str:
    """How many configurations reached each rung, `rungs 20: 8  40: 3  80: 1`, with the best WER there if asked."""
    budget = Budget.from_json(summary.record.space["budget"], summary.record.name)
    parts: list[str] = []
    for step, one in zip(budget.rungs, rung_summaries(budget.scheduler_config, summary.history), strict=True):
        word = "" if parts else "best WER "
        value = f" ({word}{one.best:.3f})" if best and one.best is not None else ""
        parts.append(f"{step}: {one.reached}{value}")
    return f"rungs {'  '.join(parts)}"


def seconds_left(summary: Summary, workers: int) -> float | None:
    """What is left of the study on the clock, with so many workers; None where nobody can tell yet."""
    scheduler_config = Budget.from_json(summary.record.space["budget"], summary.record.name).scheduler_config
    return eta.seconds_left(scheduler_config, summary.history, summary.record.trials, workers)


def cost_line(summary: Summary) -> str:
    """What a study cost, and what judging early saved."""
    saved = f", {clock_time(summary.saved)} saved by not training all in full" if summary.saved else ""
    return f"{clock_time(summary.spent)} of training and evaluation{saved}"
